"""The native operations as PyTorch sees them: registered ops with fakes, and calls on tensors.

The only module that imports ``_core``. An op computes a loss together with its gradients, in one
pass; `gdcore.functional` puts them under autograd. Ops are registered at the low level
(``torch.library.Library``), which costs a fifth of ``torch.library.custom_op``.
"""

import os
from collections.abc import Sequence

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

# Each op has beside it the function that makes its results, empty: what the op fills, and what it
# looks like to a fake tensor.


def mse(input: Tensor, target: Tensor, reduction: str, gradient: bool) -> tuple[Tensor, Tensor]:
    if input.dim() > 2 or target.dim() > 2:
        input, target = input.contiguous(), target.contiguous()
    loss, slope = _mse_results(input, target, reduction, gradient)
    _core.mse(input, target, reduction, loss, slope if gradient else None, torch.get_num_threads())
    return loss, slope


def _mse_results(
    input: Tensor, target: Tensor, reduction: str, gradient: bool
) -> tuple[Tensor, Tensor]:
    loss = input.new_empty(input.shape if reduction == "none" else ())
    return loss, input.new_empty(input.shape if gradient else 0)


def linear_mse(
    x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, reduction: str, dx: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    loss, dweight, dbias, slope = _linear_mse_results(x, weight, bias, target, reduction, dx)
    _core.model_loss(
        "linear",
        x,
        target,
        (weight,) if bias is None else (weight, bias),
        reduction == "mean",
        loss,
        (dweight,) if bias is None else (dweight, dbias),
        slope if dx else None,
        torch.get_num_threads(),
    )
    return loss, dweight, dbias, slope


def _linear_mse_results(
    x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, reduction: str, dx: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty(()),
        weight.new_empty(weight.shape),
        weight.new_empty(0 if bias is None else bias.shape),
        x.new_empty(x.shape if dx else 0),
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
    return x.new_empty(()), coefficients.new_empty(coefficients.shape)


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
    return (
        x.new_empty(()),
        a.new_empty(a.shape),
        b.new_empty(b.shape),
        c.new_empty(c.shape),
        d.new_empty(d.shape),
    )


def legendre_p3(x: Tensor) -> Tensor:
    out = _legendre_p3_results(x)
    _core.legendre_p3(x.contiguous(), None, out, torch.get_num_threads())
    return out


def legendre_p3_backward(grad: Tensor, x: Tensor) -> Tensor:
    out = _legendre_p3_backward_results(grad, x)
    _core.legendre_p3(x.contiguous(), grad.contiguous(), out, torch.get_num_threads())
    return out


def _legendre_p3_results(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _legendre_p3_backward_results(grad: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


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
    _library.impl(name, native, "CompositeExplicitAutograd")
    torch.library.register_fake(f"gdcore::{name}", results, lib=_library)

ops = torch.ops.gdcore
"""The registered ops, ready to be called."""


def sgd(groups: "Sequence[_core.SgdGroup]") -> None:
    """Update the parameters and momentum buffers of all groups in place, in one call."""
    _core.sgd(groups, torch.get_num_threads())
    written: list[Tensor] = []
    for parameters, _, momenta, *_ in groups:
        written.extend(parameters)
        written.extend(buffer for buffer in momenta if buffer is not None)
    torch.autograd.graph.increment_version(written)


Training = _core.Training
Watch = _core.Watch
