"""The native operations as PyTorch sees them: registered ops with fakes, and calls on tensors.

The only module that imports ``_core``. An op computes a loss together with its gradients, in one
pass; `gdcore.functional` puts them under autograd. Ops are registered at the low level
(``torch.library.Library``), which costs a fifth of ``torch.library.custom_op``.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
    raise ImportError(
        "gdcore needs torch 2.11 or later, for its DLPack exchange table; "
        f"this is torch {torch.__version__}"
    )

from . import _core

_core.connect(torch.Tensor)

if "GDCORE_ISA" in os.environ:
    try:
        _core.choose_instruction_set(os.environ["GDCORE_ISA"])
    except ValueError as error:
        raise ImportError(f"GDCORE_ISA: {error}") from None

MAX_DEGREE = _core.max_degree
COMPILER = _core.compiler
built_instruction_sets = _core.built_instruction_sets
available_instruction_sets = _core.available_instruction_sets
active_instruction_set = _core.active_instruction_set
choose_instruction_set = _core.choose_instruction_set

_library = torch.library.Library("gdcore", "DEF")
PLAIN = (Tensor, torch.nn.Parameter)

# Each op has beside it the function that makes its results, empty: what the op fills, and what it
# looks like to a fake tensor. A result that is not wanted is None, and for the dispatcher, which
# wants a tensor, an empty one. `empty_like` takes a third of the time of `empty` with a shape.

_SCALARS = {dtype: torch.empty((), dtype=dtype) for dtype in (torch.float32, torch.float64)}


def _like(tensor: Tensor) -> Tensor:
    if tensor.layout is torch.strided and not tensor.is_contiguous():
        return torch.empty_like(tensor, memory_format=torch.contiguous_format)
    return torch.empty_like(tensor)


def _scalar(tensor: Tensor) -> Tensor:
    pattern = _SCALARS.get(tensor.dtype)
    if pattern is None or type(tensor) not in PLAIN:
        return torch.empty((), dtype=tensor.dtype, device=tensor.device)
    return torch.empty_like(pattern)


def mse(
    input: Tensor, target: Tensor, reduction: str, gradient: bool
) -> tuple[Tensor, Tensor | None]:
    if input.dim() > 2 or target.dim() > 2:
        input, target = input.contiguous(), target.contiguous()
    loss, slope = _mse_results(input, target, reduction, gradient)
    _core.mse(input, target, reduction, loss, slope, torch.get_num_threads())
    return loss, slope


def _mse_results(
    input: Tensor, target: Tensor, reduction: str, gradient: bool
) -> tuple[Tensor, Tensor | None]:
    loss = _like(input) if reduction == "none" else _scalar(input)
    return loss, _like(input) if gradient else None


def linear_mse(
    x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, reduction: str, dx: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    results = _linear_mse_results(x, weight, bias, target, reduction, dx)
    loss, dweight, dbias, slope = results
    _core.model_loss(
        "linear",
        x,
        target,
        (weight,) if bias is None else (weight, bias),
        reduction == "mean",
        loss,
        (dweight,) if dbias is None else (dweight, dbias),
        slope,
        torch.get_num_threads(),
    )
    return results


def _linear_mse_results(
    x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, reduction: str, dx: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    return (
        _scalar(x),
        _like(weight),
        None if bias is None else _like(bias),
        _like(x) if dx else None,
    )


def polynomial_mse(
    x: Tensor, coefficients: Tensor, target: Tensor, reduction: str
) -> tuple[Tensor, Tensor]:
    loss, gradient = _polynomial_mse_results(x, coefficients, target, reduction)
    _core.model_loss(
        "polynomial",
        x,
        target,
        (coefficients,),
        reduction == "mean",
        loss,
        (gradient,),
        None,
        torch.get_num_threads(),
    )
    return loss, gradient


def _polynomial_mse_results(
    x: Tensor, coefficients: Tensor, target: Tensor, reduction: str
) -> tuple[Tensor, Tensor]:
    return _scalar(x), _like(coefficients)


def legendre_mse(
    x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, target: Tensor, reduction: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    loss, *gradients = _legendre_mse_results(x, a, b, c, d, target, reduction)
    _core.model_loss(
        "legendre",
        x,
        target,
        (a, b, c, d),
        reduction == "mean",
        loss,
        gradients,
        None,
        torch.get_num_threads(),
    )
    da, db, dc, dd = gradients
    return loss, da, db, dc, dd


def _legendre_mse_results(
    x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, target: Tensor, reduction: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _scalar(x), _like(a), _like(b), _like(c), _like(d)


def legendre_p3(x: Tensor) -> Tensor:
    out = _legendre_p3_results(x)
    _core.legendre_p3(x.contiguous(), None, out, torch.get_num_threads())
    return out


def legendre_p3_backward(grad: Tensor, x: Tensor) -> Tensor:
    out = _legendre_p3_backward_results(grad, x)
    _core.legendre_p3(x.contiguous(), grad.contiguous(), out, torch.get_num_threads())
    return out


def _legendre_p3_results(x: Tensor) -> Tensor:
    return _like(x)


def _legendre_p3_backward_results(grad: Tensor, x: Tensor) -> Tensor:
    return _like(x)


_implementations: dict[str, tuple[Any, Any]] = {}


def _all_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as the dispatcher needs it: an empty tensor in place of None."""

    @functools.wraps(function)
    def op(*arguments: Any) -> Any:
        results = function(*arguments)
        if not isinstance(results, tuple):
            return results
        return tuple(arguments[0].new_empty(0) if r is None else r for r in results)

    return op


for schema, native, results in (
    (
        "mse(Tensor input, Tensor target, str reduction, bool gradient) -> (Tensor, Tensor)",
        mse,
        _mse_results,
    ),
    (
        "linear_mse(Tensor x, Tensor weight, Tensor? bias, Tensor target, str reduction, bool dx)"
        " -> (Tensor, Tensor, Tensor, Tensor)",
        linear_mse,
        _linear_mse_results,
    ),
    (
        "polynomial_mse(Tensor x, Tensor coefficients, Tensor target, str reduction)"
        " -> (Tensor, Tensor)",
        polynomial_mse,
        _polynomial_mse_results,
    ),
    (
        "legendre_mse(Tensor x, Tensor a, Tensor b, Tensor c, Tensor d, Tensor target,"
        " str reduction) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        legendre_mse,
        _legendre_mse_results,
    ),
    ("legendre_p3(Tensor x) -> Tensor", legendre_p3, _legendre_p3_results),
    (
        "legendre_p3_backward(Tensor grad, Tensor x) -> Tensor",
        legendre_p3_backward,
        _legendre_p3_backward_results,
    ),
):
    name = schema[: schema.index("(")]
    _library.define(schema)
    # Every device reaches the native check, which names the argument that is somewhere else.
    _library.impl(name, _all_tensors(native), "CompositeExplicitAutograd")
    torch.library.register_fake(f"gdcore::{name}", _all_tensors(results), lib=_library)
    _implementations[name] = (native, getattr(torch.ops.gdcore, name).default)


def traced() -> bool:
    """Whether torch records, fakes or intercepts what is called."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def implementation(name: str, *tensors: Tensor | None) -> Any:
    """What computes an op on these tensors: its native function where torch's dispatcher would only
    pass it on (that takes 15 µs, a sixth of a loss with its backward), else the op itself, so that
    tracing, fake tensors and dispatch modes see it.
    """
    native, op = _implementations[name]
    if traced():
        return op
    for tensor in tensors:
        # The dispatcher makes a lazy negation real, and hands a subclass to its own rules.
        if tensor is not None and (type(tensor) not in PLAIN or tensor.is_neg()):
            return op
    return native


def is_one(tensor: Tensor) -> bool:
    """Whether this is a single 1 that can be read for nothing: in plain memory, and not traced."""
    return (
        type(tensor) is Tensor
        and tensor.dim() == 0
        and tensor.is_cpu
        and not traced()
        and tensor.item() == 1.0
    )


class Step:
    """An optimizer's native step: ``"sgd"``, ``"rmsprop"`` or ``"adam"``."""

    def __init__(self, rule: str) -> None:
        kinds = {"sgd": _core.SgdStep, "rmsprop": _core.RmspropStep, "adam": _core.AdamStep}
        # Versions move on before anything is written: what has none raises there.
        self._step = kinds[rule](PLAIN, torch._C._increment_version).step

    def __call__(
        self,
        groups: list[dict[str, Any]],
        state: dict[Tensor, Any],
        fresh: dict[Tensor, Any] | None = None,
    ) -> tuple[list[Tensor], list[Tensor]] | None:
        """One step of all groups in place, or none: then the parameters that are torch's to update,
        and those that have no state yet. The latter find it in ``fresh``, where that is given.
        """
        return self._step(groups, state, fresh, torch.get_num_threads())


Training = _core.Training
Watch = _core.Watch
