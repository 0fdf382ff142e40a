"""The native operations as PyTorch sees them: registered ops with fakes, and calls on tensors.

The only module that imports ``_core``. An op computes a loss together with its gradients, in one
pass; `gdcore.functional` puts them under autograd. Ops are registered at the low level
(``torch.library.Library``), which costs a fifth of ``torch.library.custom_op``.
"""

import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
    raise ImportError(
        "gdcore needs torch 2.11 or later, for its DLPack exchange table; "
        f"this is torch {torch.__version__}"
    )

from . import _checks, _core, _fakes
from ._modes import traced, transformed

_core.connect(torch.Tensor)


def _cuda_path() -> ModuleType | None:
    """The calls for CUDA tensors, or None in a build without."""
    if importlib.util.find_spec("gdcore._cuda") is None:
        return None
    from ._native import cuda_ops as _cuda_ops

    _core.connect_device_updates(_cuda_ops.UPDATES)
    return _cuda_ops


cuda = _cuda_path()

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


def mse(
    input: Tensor, target: Tensor, reduction: str, gradient: bool, weight: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    if input.dim() > 2 or target.dim() > 2:
        input, target = input.contiguous(), target.contiguous()
        weight = None if weight is None else weight.contiguous()
    loss, slope = _fakes.mse_results(input, reduction, gradient)
    _core.mse(input, target, weight, reduction, loss, slope, torch.get_num_threads())
    return loss, slope


def linear_mse(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    reduction: str,
    dx: bool,
    loss_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    parameters = (weight,) if bias is None else (weight, bias)
    mean, threads = reduction == "mean", torch.get_num_threads()
    results = _core.model_loss("linear", x, target, parameters, loss_weight, mean, dx, threads)
    return results if bias is not None else (*results[:2], None, results[2])


def polynomial_mse(
    x: Tensor, coefficients: Tensor, target: Tensor, reduction: str, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    mean, threads = reduction == "mean", torch.get_num_threads()
    return _core.model_loss("polynomial", x, target, (coefficients,), weight, mean, False, threads)[
        :2
    ]


def legendre_mse(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    target: Tensor,
    reduction: str,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    mean, threads = reduction == "mean", torch.get_num_threads()
    return _core.model_loss("legendre", x, target, (a, b, c, d), weight, mean, False, threads)[:5]


def legendre_p3(x: Tensor) -> Tensor:
    out = _fakes.like(x)
    _core.legendre_p3(x.contiguous(), None, out, torch.get_num_threads())
    return out


def legendre_p3_backward(grad: Tensor, x: Tensor) -> Tensor:
    out = _fakes.like(x)
    _core.legendre_p3(x.contiguous(), grad.contiguous(), out, torch.get_num_threads())
    return out


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


for schema, native, fake in (
    (
        "mse(Tensor input, Tensor target, str reduction, bool gradient, Tensor? weight=None)"
        " -> (Tensor, Tensor)",
        mse,
        _fakes.mse,
    ),
    (
        "linear_mse(Tensor x, Tensor weight, Tensor? bias, Tensor target, str reduction, bool dx,"
        " Tensor? loss_weight=None) -> (Tensor, Tensor, Tensor, Tensor)",
        linear_mse,
        _fakes.linear_mse,
    ),
    (
        "polynomial_mse(Tensor x, Tensor coefficients, Tensor target, str reduction,"
        " Tensor? weight=None) -> (Tensor, Tensor)",
        polynomial_mse,
        functools.partial(_fakes.polynomial_mse, max_degree=MAX_DEGREE),
    ),
    (
        "legendre_mse(Tensor x, Tensor a, Tensor b, Tensor c, Tensor d, Tensor target,"
        " str reduction, Tensor? weight=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        legendre_mse,
        _fakes.legendre_mse,
    ),
    ("legendre_p3(Tensor x) -> Tensor", legendre_p3, _fakes.legendre_p3),
    (
        "legendre_p3_backward(Tensor grad, Tensor x) -> Tensor",
        legendre_p3_backward,
        _fakes.legendre_p3_backward,
    ),
):
    name = schema[: schema.index("(")]
    _library.define(schema)
    # Every device reaches the native check, which names the argument that is somewhere else.
    _library.impl(name, _all_tensors(native), "CompositeExplicitAutograd")
    torch.library.register_fake(f"gdcore::{name}", _all_tensors(fake), lib=_library)
    _implementations[name] = (native, getattr(torch.ops.gdcore, name).default)


if cuda is not None:
    # A tensor on CUDA among the arguments brings the op here, which sees where the others are.
    for name, (native, _) in _implementations.items():
        _library.impl(name, _all_tensors(getattr(cuda, native.__name__)), "CUDA")


def implementation(name: str, native: bool) -> Any:
    """What computes an op: its native function, or what torch's dispatcher takes (15 µs, a sixth of
    a loss with its backward), so that tracing, fake tensors, dispatch modes and subclasses see it.
    """
    return _implementations[name][0 if native else 1]


plain = _core.plain


def is_one(grad: Tensor) -> bool:
    """Whether this is a single 1 that can be read for nothing: in plain memory, and not traced."""
    return not (traced() or transformed()) and _core.is_one(grad)


def reads_halves(tensor: Tensor) -> bool:
    """Whether the ops take a half type of this tensor as it is, with gradients in float32."""
    return cuda is not None and tensor.is_cuda and not (traced() or transformed())


def scaled(gradient: Tensor, grad: Tensor) -> Tensor:
    """A loss's own gradient, which nobody else has, times the one from above."""
    if (
        cuda is not None
        and gradient.is_cuda
        and grad.dim() == 0
        and grad.dtype in (gradient.dtype, *_checks.HALF)  # then the gradient is float32
        and grad.device == gradient.device
        and type(gradient) is type(grad) is Tensor
        and gradient.is_contiguous()
        and not (traced() or transformed() or grad.is_neg())
    ):
        return cuda.scale(gradient, grad.to(gradient.dtype))  # type: ignore[no-any-return]
    return gradient * grad


class Step:
    """An optimizer's native step: ``"sgd"``, ``"rmsprop"`` or ``"adam"``."""

    def __init__(self, rule: str) -> None:
        kinds = {"sgd": _core.SgdStep, "rmsprop": _core.RmspropStep, "adam": _core.AdamStep}
        # Versions move on before anything is written: what has none raises there.
        self._step = kinds[rule](_checks.PLAIN, torch._C._increment_version).step

    def __call__(
        self,
        groups: list[dict[str, Any]],
        state: dict[Tensor, Any],
        fresh: dict[Tensor, Any] | None = None,
        skip: Tensor | None = None,
    ) -> tuple[list[Tensor], list[Tensor]] | None:
        """One step of all groups in place, or none: then the parameters that are torch's to update,
        and those that have no state yet. The latter find it in ``fresh``, where that is given.
        Unless ``skip``, one number, is 0, nothing is written.
        """
        return self._step(groups, state, fresh, torch.get_num_threads(), skip)


def step(
    training: "_core.Training",
    watch: "_core.Watch",
    optimizer: torch.optim.Optimizer,
    check: Callable[[Any, Any], None],
) -> Callable[[Tensor, Tensor], Tensor | None]:
    """One update as a function of x and y: see ``csrc/bindings/step.cpp``."""
    return _core.step(training, watch, optimizer, check, *_fakes.SCALARS.values())


def training(
    kernel: str,
    flat: bool,
    parameters: Sequence[Tensor],
    mean: bool,
    rule: str,
    fresh: Callable[[dict[str, Any], Tensor], Any],
    index: Tensor | None,
) -> "_core.Training":
    """The native loop: see ``csrc/bindings/training.h``."""
    return _core.Training(kernel, flat, parameters, mean, rule, _checks.PLAIN, fresh, index)


Training = _core.Training
StopRule = _core.StopRule
shuffle = _core.shuffle
triangle = _core.triangle
scale_finite = _core.scale_finite
sum_of_squares = _core.sum_of_squares
expect_apart = _core.expect_apart
Watch = _core.Watch
