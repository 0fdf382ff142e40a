"""What the losses ask of their arguments, for those that never reach the native checks.

Fake tensors and tensors inside ``torch.func`` have shapes and dtypes but no memory, so these are
checked here, in the words of ``csrc/bindings``; the tests compare the two.
"""

import contextlib
import functools
import operator
from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

REDUCTIONS = ("mean", "sum", "none")
NATIVE = (torch.float32, torch.float64)
PLAIN = (Tensor, torch.nn.Parameter)
# Those with kernels: `_native.cuda_ops` adds its own where it is built.
devices = {"cpu"}
HALF = (torch.bfloat16, torch.float16)
# With which torch's arithmetic promotes.
_REAL = {*NATIVE, *HALF, torch.bool, torch.uint8}
_REAL |= {torch.int8, torch.int16, torch.int32, torch.int64}


def shape_text(shape: Sequence[Any]) -> str:
    """``(3, 1)`` or ``(3,)``: a tuple, whatever kind of integers it holds."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _fail(name: str, expected: str, shape: Sequence[Any], mend: str = "") -> None:
    raise ValueError(f"{name}: expected {expected}, got {shape_text(shape)}{mend}")


def integer(name: str, value: Any) -> int:
    """An int, or what stands for one as an index does; a bool does not."""
    if not isinstance(value, (bool, Tensor)):
        with contextlib.suppress(TypeError):
            return operator.index(value)
    raise TypeError(f"{name}: expected an int, got {type(value).__name__}")


def tensors(names: Sequence[str], inputs: Sequence[object]) -> None:
    """All of them tensors, but for a bias, and all or none of them fake."""
    for name, value in zip(names, inputs, strict=False):
        if not isinstance(value, Tensor) and (value is not None or name != "bias"):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if any(type(value) is FakeTensor for value in inputs):
        for name, value in zip(names, inputs, strict=False):
            if value is not None and not isinstance(value, FakeTensor):
                raise TypeError(
                    f"{name}: expected a FakeTensor, as others among the arguments are, got a "
                    f"{type(value).__name__} with memory of its own"
                )


def reduction_name(reduction: object) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected mean, sum or none, got {reduction!r}")


def constant(name: str, tensor: Tensor) -> None:
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{name}: expected a tensor that does not require grad, got one that does; "
            f"use {name}.detach(), or gdcore.reference, which differentiates everything"
        )


def _dense(name: str, tensor: Tensor) -> None:
    if tensor.device.type not in devices:
        raise ValueError(f"{name}: expected a CPU tensor, got one on {tensor.device}")
    if tensor.layout is not torch.strided:
        raise ValueError(f"{name}: expected a dense tensor with storage, got {tensor.layout}")


def native_dtype(**tensors: Tensor | None) -> None:
    """The one dtype of all the tensors of a fake, which may be on the device meta."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not tensor.is_meta:
            _dense(name, tensor)
        if tensor.dtype not in NATIVE:
            raise TypeError(
                f"{name}: expected dtype torch.float32 or torch.float64, got {tensor.dtype}"
            )
    alike(tuple(tensors), tuple(tensors.values()))


@overload
def widened(tensor: Tensor) -> Tensor: ...
@overload
def widened(tensor: Tensor | None) -> Tensor | None: ...
def widened(tensor: Tensor | None) -> Tensor | None:
    """A half type as float32, what else there is as it is."""
    return tensor.float() if tensor is not None and tensor.dtype in HALF else tensor


def promoted(tensors: Sequence[Tensor | None], own: int) -> tuple[Tensor | None, ...]:
    """All in the dtype that a prediction from the first ``own``, which share one, and the others
    have together; as they are where these do not, or where it is none to compute in.
    """
    dtypes = {tensor.dtype for tensor in tensors if tensor is not None}
    prediction = {tensor.dtype for tensor in tensors[:own] if tensor is not None}
    if len(dtypes) == 1 or len(prediction) > 1 or not dtypes <= _REAL:
        return tuple(tensors)
    dtype = functools.reduce(torch.promote_types, dtypes)
    if not dtype.is_floating_point:
        return tuple(tensors)
    return tuple(None if tensor is None else tensor.to(dtype) for tensor in tensors)


def any_dtype(names: Sequence[str], tensors: Sequence[Tensor | None]) -> torch.dtype:
    """The one dtype of all the tensors, dense and on one device, half types included."""
    for i, tensor in enumerate(tensors):
        if tensor is not None:
            _dense(names[i], tensor)
    first = tensors[0]
    assert first is not None
    if first.dtype not in NATIVE + HALF:
        raise TypeError(
            f"{names[0]}: expected dtype torch.float32 or torch.float64, "
            f"or torch.bfloat16 or torch.float16, got {first.dtype}"
        )
    alike(names, tensors)
    return first.dtype


def beside_parameters(device: torch.device, **tensors: Tensor | None) -> None:
    """That all tensors are where the parameters are."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.device != device:
            raise ValueError(
                f"{name}: expected a tensor on {device} as the parameters, got one on "
                f"{tensor.device}"
            )


def alike(names: Sequence[str], tensors: Sequence[Tensor | None], where: str = "") -> None:
    """One device and one dtype: the first one's; ``where`` says what made it so."""
    first = tensors[0]
    for i, tensor in enumerate(tensors):
        if tensor is None or first is None:
            continue
        if tensor.device != first.device:
            raise ValueError(
                f"{names[i]}: expected a tensor on {first.device} as {names[0]}, "
                f"got one on {tensor.device}"
            )
        if tensor.dtype != first.dtype:
            raise TypeError(
                f"{names[i]}: expected dtype {first.dtype} as {names[0]}{where}, got {tensor.dtype}"
            )


def _dim(name: str, tensor: Tensor, dim: int, form: str, mend: str | None = None) -> None:
    if tensor.dim() == dim:
        return
    if mend is None:
        mend = ""
        if tensor.dim() == dim - 1:
            mend = f"; use {name}.unsqueeze(-1)"
        elif tensor.dim() == dim + 1 and tensor.shape[-1] == 1:
            mend = f"; use {name}.squeeze(-1)"
    _fail(name, f"shape {form}", tensor.shape, mend)


def expect_shape(name: str, tensor: Tensor | None, shape: Sequence[Any], what: str) -> None:
    """That a tensor, if there is one, has this shape, which is ``what``."""
    if tensor is None or (tensor.dim() == len(shape) and tuple(tensor.shape) == tuple(shape)):
        return
    mend = ""
    if len(shape) == tensor.dim() + 1 and shape[-1] == 1:
        mend = f"; use {name}.unsqueeze(-1)"
    elif len(shape) + 1 == tensor.dim() and tensor.shape[-1] == 1:
        mend = f"; use {name}.squeeze(-1)"
    _fail(name, f"shape {shape_text(shape)} {what}", tensor.shape, mend)


def mse(input: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
    expect_shape("target", target, input.shape, "as input")
    expect_shape("weight", weight, input.shape, "as input")


def linear_mse(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    loss_weight: Tensor | None = None,
    names: tuple[str, str] = ("target", "loss_weight"),
) -> None:
    mend = None
    if x.dim() == 1 and weight.dim() == 2 and weight.shape[1] != 1:
        mend = "; use x.unsqueeze(0)" if x.shape[0] == weight.shape[1] else ""
    _dim("x", x, 2, "(n, d)", mend)
    _dim("weight", weight, 2, "(k, d)")
    d, k = x.shape[1], weight.shape[0]
    if weight.shape[1] != d:
        expected = f"shape (k, {d}) for x of shape {shape_text(x.shape)}, as nn.Linear stores it"
        _fail("weight", expected, weight.shape, "; use weight.t()" if k == d else "")
    expect_shape("bias", bias, (k,), "as weight has that many rows")
    expect_shape(names[0], target, (x.shape[0], k), "as the prediction")
    expect_shape(names[1], loss_weight, (x.shape[0], k), "as the prediction")


def polynomial_mse(
    x: Tensor,
    coefficients: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    names: tuple[str, str] = ("target", "weight"),
    *,
    max_degree: int,
) -> None:
    _dim("x", x, 1, "(n,)")
    expect_shape(names[0], target, x.shape, "as x")
    expect_shape(names[1], weight, x.shape, "as x")
    _dim("coefficients", coefficients, 1, "(degree + 1,)")
    count = coefficients.shape[0]
    if count < 1 or count > max_degree + 1:
        raise ValueError(
            f"coefficients: expected 1 to {max_degree + 1} of them "
            f"(degree 0 to {max_degree}), got {count}"
        )


def legendre_mse(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    names: tuple[str, str] = ("target", "weight"),
) -> None:
    _dim("x", x, 1, "(n,)")
    expect_shape(names[0], target, x.shape, "as x")
    expect_shape(names[1], weight, x.shape, "as x")
    for name, scalar in (("a", a), ("b", b), ("c", c), ("d", d)):
        if scalar.numel() != 1:
            raise ValueError(
                f"{name}: expected a single value, got shape {shape_text(scalar.shape)}"
            )
