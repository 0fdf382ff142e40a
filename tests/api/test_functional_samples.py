"""PyTorch's own samples for ``mse_loss`` and ``linear``, put to the losses: every dtype and shape.

What a sample asks that the losses do not do is refused: an ``x`` that is not (n, d), for which
``linear`` has leading dimensions; integers and complex numbers, of which there is no such loss; and
whatever would have to be broadcast.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gdcore

from ..devices import NOT_EMULATED
from .refusal import refused
from .rounding import compare

pytest.importorskip("expecttest", reason="torch's own cases need the test extra")

from torch.testing._internal.common_methods_invocations import op_db

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

functional, reference = gdcore.functional, gdcore.reference
OPS = {op.name: op for op in op_db if op.name in ("nn.functional.mse_loss", "nn.functional.linear")}
WIDE = (torch.float32, torch.float64)
HALF = (torch.bfloat16, torch.float16)
REDUCTIONS = ("mean", "sum", "none")


class Sample(NamedTuple):
    input: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def samples(name: str, dtype: torch.dtype) -> Iterator[Sample]:
    """Those of torch's tests of gradients, and those of its tests against NumPy."""
    op = OPS[f"nn.functional.{name}"]
    for make in (op.sample_inputs, op.reference_inputs):
        for sample in make(str(torch.get_default_device()), dtype):
            yield Sample(sample.input, sample.args, sample.kwargs)


def linear_samples(dtype: torch.dtype) -> list[tuple[Tensor, Tensor, Tensor | None, Tensor]]:
    """x, weight, bias, and a target that no sample has, as ``linear`` has none."""
    found = []
    for x, args, kwargs in samples("linear", dtype):
        assert not kwargs
        weight, *rest = args
        bias = rest[0] if rest else None
        target = torch.linspace(-1, 1, x.shape[:-1].numel() * len(weight))
        found.append((x, weight, bias, target.reshape(*x.shape[:-1], len(weight)).to(dtype)))
    return found


def test_there_are_samples_of_every_kind() -> None:
    assert {s.input.dim() for s in samples("mse_loss", torch.float32)} >= {0, 1, 2, 3}
    kinds = {s.kwargs.get("reduction") for s in samples("mse_loss", torch.float32)}
    assert kinds >= {None, *REDUCTIONS}
    shapes = [(x.dim(), len(x), bias is None) for x, _, bias, _ in linear_samples(torch.float32)]
    assert {dim for dim, _, _ in shapes} >= {1, 2, 3, 5}
    assert {(2, 0, True), (2, 0, False), (2, 8, True), (2, 8, False)} <= set(shapes)
    assert set(OPS["nn.functional.mse_loss"].dtypes) == {*WIDE, *HALF}


@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_mse_loss(dtype: torch.dtype) -> None:
    for input, args, kwargs in samples("mse_loss", dtype):
        (target,) = args
        fused, oracle, absolute = (
            functools.partial(formula, **kwargs)
            for formula in (functional.mse_loss, F.mse_loss, reference.mse_loss)
        )
        # r, its square, n sums, the division and the conversion.
        compare(fused, oracle, absolute, (input,), target, input.numel() + 6, range(1))


def linear_formula(loss: Any, bias: bool, reduction: str) -> Any:
    def call(*tensors: Tensor) -> Tensor:
        *arguments, target = tensors
        result: Tensor = loss(*arguments, *([] if bias else [None]), target, reduction)
        return result

    return call


def torch_loss(
    x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, reduction: str
) -> Tensor:
    return F.mse_loss(F.linear(x, weight, bias), target, reduction=reduction)


@pytest.mark.parametrize("dtype", WIDE, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_linear_mse_loss(reduction: str, dtype: torch.dtype) -> None:
    tried = 0
    for x, weight, bias, target in linear_samples(dtype):
        if x.dim() != 2:
            with refused(ValueError, "x", "shape (n, d)"):
                functional.linear_mse_loss(x, weight, bias, target, reduction)
            continue
        formulas = [
            linear_formula(loss, bias is not None, reduction)
            for loss in (functional.linear_mse_loss, torch_loss, reference.linear_mse_loss)
        ]
        inputs = (x, weight) if bias is None else (x, weight, bias)
        if len(x) == 0:  # the mean of nothing is NaN, and its gradient zero, in torch and here
            loss, expected = (formula(*inputs, target) for formula in formulas[:2])
            torch.testing.assert_close(loss, expected, rtol=0, atol=0, equal_nan=True)
            continue
        # A residual takes d products and d + 1 sums; the loss squares it and sums n k of them.
        roundings = 2 * (2 * x.shape[1] + 2) + target.numel() + 8
        compare(*formulas, inputs, target, roundings, range(len(inputs)))
        tried += 1
    assert tried >= 4


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_types_are_rounded_once(device: torch.device, dtype: torch.dtype) -> None:
    """On CUDA they are added up in another order, which can move a rounding by one unit."""
    units = 0.0 if device.type == "cpu" else torch.finfo(dtype).eps

    def alike(half: Tensor, wide: Tensor) -> None:
        torch.testing.assert_close(half, wide.to(dtype), rtol=units, atol=0.0, equal_nan=True)

    for input, args, kwargs in samples("mse_loss", dtype):
        (target,) = args
        wide = functional.mse_loss(input.float(), target.float(), **kwargs)
        alike(functional.mse_loss(input, target, **kwargs), wide)
    for x, weight, bias, target in linear_samples(dtype):
        if x.dim() == 2 and len(x) > 0:
            narrow = (x, weight, bias, target)
            wide = functional.linear_mse_loss(*(t if t is None else t.float() for t in narrow))
            alike(functional.linear_mse_loss(*narrow), wide)


@pytest.mark.parametrize(
    "dtype", sorted(OPS["nn.functional.linear"].dtypes - {*WIDE, *HALF}, key=str), ids=str
)
def test_other_dtypes_of_linear_are_refused(dtype: torch.dtype) -> None:
    for x, weight, bias, target in linear_samples(dtype):
        with refused(TypeError, "x", "dtype torch.float32 or torch.float64", str(dtype)):
            functional.linear_mse_loss(x, weight, bias, target)


@pytest.mark.parametrize("dtype", [*WIDE, *HALF], ids=str)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_nothing_is_broadcast(dtype: torch.dtype) -> None:
    """Each sample with a target that torch would broadcast, with a warning."""
    for input, args, kwargs in samples("mse_loss", dtype):
        (target,) = args
        for other in (
            target.unsqueeze(0),
            target.unsqueeze(-1),
            target[:1] if input.dim() else None,
        ):
            if other is None or other.shape == input.shape:
                continue
            F.mse_loss(input, other, **kwargs)  # torch takes it
            with refused(ValueError, "target", "as input"):
                functional.mse_loss(input, other, **kwargs)
    for x, weight, bias, target in linear_samples(dtype):
        if x.dim() == 2:
            with refused(ValueError, "target", "as the prediction"):
                functional.linear_mse_loss(x, weight, bias, target[:, :1])
