"""Recognising what a native step can run, in the user's own model, loss and optimizer.

A plan holds as long as all that was seen in making it is the same: a hook, a learning rate or a
parameter that changed since makes a new plan, and none can be missed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules import module as torch_module

from .. import _checks, _ops, functional, nn
from .._native.loop import training_of
from .._native.optimizers import recognise_optimizer
from .._seen import Look, Seen

__all__ = ["LossFunction", "StepPlan"]

LossFunction = torch.nn.Module | Callable[[Tensor, Tensor], Tensor]

_MODULE_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_GLOBAL_MODULE_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)

# What calling a module of these classes runs, unless somebody puts another function in its place.
_FORWARDS: dict[type, Any] = {
    kind: kind.forward
    for kind in (
        torch.nn.Linear,
        torch.nn.Sequential,
        torch.nn.Flatten,
        torch.nn.MSELoss,
        nn.LinearRegression,
        nn.PolynomialRegression,
        nn.LegendreRegression,
        nn.MSELoss,
    )
}


def _describe(value: object) -> str:
    if type(value) is torch.nn.Sequential:
        return f"Sequential({', '.join(map(_describe, value))})"
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    return getattr(value, "__name__", None) or type(value).__name__


class NativeModel(NamedTuple):
    """A model that has a kernel: which one, its parameters in the kernel's order, their names."""

    kernel: str
    names: tuple[str, ...]
    parameters: tuple[Tensor, ...]
    flat: bool
    """Whether a linear model's (n, k) prediction is flattened to (n k,)."""

    @property
    def on_cuda(self) -> bool:
        """Whether it has kernels there."""
        return _ops.cuda is not None and self.parameters[0].is_cuda


def _plain_module(argument: str, module: torch.nn.Module, seen: Look) -> None:
    """Check that calling the module runs its class's own forward and nothing else."""
    state = module.__dict__
    for hooks in _MODULE_HOOKS:
        if not seen.empty(seen.item(state, hooks)):
            kind = hooks.strip("_").replace("_", " ").removesuffix("s")
            raise ValueError(f"{argument}: expected no hooks, got a {kind} on {_describe(module)}")
    own = _FORWARDS[type(module)]
    if (
        seen.item(state, "forward") is not None
        or seen.attribute(type(module), "forward") is not own
    ):
        raise ValueError(
            f"{argument}: expected {_describe(module)}'s own forward, got a replaced one"
        )


def _no_global_hooks(argument: str, seen: Look) -> None:
    if not all(seen.empty(hooks) for hooks in _GLOBAL_MODULE_HOOKS):
        raise ValueError(f"{argument}: expected no global module hooks, got one")


def _parameters(module: torch.nn.Module, names: tuple[str, ...], seen: Look) -> tuple[Tensor, ...]:
    registered = seen.item(module.__dict__, "_parameters")
    found: list[Tensor] = []
    for name in names:
        parameter = seen.item(registered, name)
        if parameter is None:
            raise ValueError(
                f"model: expected {name} as a parameter of {_describe(module)}, got none "
                "(is it parametrised?)"
            )
        if seen.type(parameter) not in _checks.PLAIN:
            raise TypeError(f"model: expected {name} as a plain tensor, got {_describe(parameter)}")
        for attribute in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            hooks = seen.attribute(parameter, attribute)
            if hooks is not None and not seen.empty(hooks):
                raise ValueError(f"model: expected no hooks, got one on parameter {name}")
        if any(parameter is other for other in found):
            raise ValueError(f"model: expected every parameter once, got {name} a second time")
        found.append(parameter)
    return tuple(found)


def recognise_model(model: Any, seen: Look) -> NativeModel:
    """The kernel that runs a model.

    Args:
        model: exactly a ``torch.nn.Linear``, a ``Sequential(Linear, Flatten)``, or a model of
            `gdcore.nn`.
        seen: remembers what was looked at.

    Raises:
        TypeError: it is something else.
        ValueError: it carries hooks, a replaced forward or parametrised weights.
    """
    _no_global_hooks("model", seen)
    linear, flat, prefix = model, False, ""
    if seen.type(model) is torch.nn.Sequential:
        children = seen.mapping(seen.item(model.__dict__, "_modules"))
        layers = list(children.values())
        if len(layers) == 2 and seen.type(layers[1]) is torch.nn.Flatten:
            _plain_module("model", model, seen)
            linear, prefix = layers[0], f"{next(iter(children))}."
            flat = _flattens(layers[1], seen)
    kind = seen.type(linear)
    names: tuple[str, ...]
    if kind is torch.nn.Linear or kind is nn.LinearRegression:
        registered = seen.item(linear.__dict__, "_parameters")
        names = ("weight",) if seen.item(registered, "bias") is None else ("weight", "bias")
        kernel = "linear"
    elif kind is nn.PolynomialRegression and linear is model:
        names, kernel = ("coefficients",), "polynomial"
    elif kind is nn.LegendreRegression and linear is model:
        names, kernel = ("a", "b", "c", "d"), "legendre"
    else:
        raise TypeError(
            "model: expected exactly nn.Linear, Sequential(Linear, Flatten), or a model of "
            f"gdcore.nn, got {_describe(model)}, which is not recognised yet; write the step with "
            "gdcore.functional and gdcore.optim"
        )
    _plain_module("model", linear, seen)
    parameters = _parameters(linear, names, seen)
    return NativeModel(kernel, tuple(prefix + name for name in names), parameters, flat)


def _flattens(layer: torch.nn.Module, seen: Look) -> bool:
    """Whether a Flatten makes a prediction (n, k) into (n k,), rather than leave it alone."""
    _plain_module("model", layer, seen)
    start = seen.item(layer.__dict__, "start_dim")
    end = seen.item(layer.__dict__, "end_dim")
    if not (-2 <= start <= 1 and -2 <= end <= 1 and start % 2 <= end % 2):
        raise ValueError(
            f"model: expected Flatten over dimensions of (n, k), got start {start} and end {end}"
        )
    return bool(start % 2 < end % 2)


def recognise_loss(loss_fn: Any, seen: Look) -> bool:
    """Whether a squared-error loss takes the mean (True) or the sum (False).

    Args:
        loss_fn: ``nn.MSELoss`` or `gdcore.nn.MSELoss` with mean or sum, ``F.mse_loss`` or
            `gdcore.functional.mse_loss`, whose default is the mean.
        seen: remembers what was looked at.

    Raises:
        TypeError: it is something else.
        ValueError: its reduction is ``"none"``, or it carries hooks.
    """
    if loss_fn is F.mse_loss or loss_fn is functional.mse_loss:
        return True
    kind = seen.type(loss_fn)
    if kind is not torch.nn.MSELoss and kind is not nn.MSELoss:
        raise TypeError(
            "loss_fn: expected nn.MSELoss, F.mse_loss or gdcore's, "
            f"got {_describe(loss_fn)}, which is not recognised yet"
        )
    _no_global_hooks("loss_fn", seen)
    _plain_module("loss_fn", loss_fn, seen)
    reduction = seen.item(loss_fn.__dict__, "reduction")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"loss_fn: expected reduction mean or sum, got {reduction!r}")
    return bool(reduction == "mean")


class StepPlan:
    """A native step of a model, loss and optimizer as they were when it was made.

    Parameters that the optimizer does not hold, or that do not require grad, stay as they are.
    """

    def __init__(self, model: Any, loss_fn: Any, optimizer: Any) -> None:
        seen = Seen()
        self.model = recognise_model(model, seen)
        self.mean = recognise_loss(loss_fn, seen)
        recognise_optimizer(optimizer, seen)
        self.optimizer = optimizer
        self.watch = seen.watch
        self._training: _ops.Training | None = None
        if self.model.on_cuda:
            reason = _cuda_runner().no_step(self.model, optimizer)
            if reason is not None:
                raise ValueError(reason)
        else:
            self._training = training_of(self.model, self.mean, optimizer)
            self._training.check(optimizer.param_groups)

    def step(self, check: Callable[[Any, Any], None]) -> Callable[[Tensor, Tensor], Tensor | None]:
        """One update as a function of x and y, or None if what the plan was made from changed."""
        if self._training is None:
            made: Any = _cuda_runner().CudaStep(
                self.model, self.mean, self.watch, self.optimizer, check
            )
            return made  # type: ignore[no-any-return]
        return _ops.step(self._training, self.watch, self.optimizer, check)


def _cuda_runner() -> Any:
    """Imported where there is CUDA."""
    from .._native import cuda_runner as _cuda_runner

    return _cuda_runner
