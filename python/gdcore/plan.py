"""Recognising what a native step can run: the user's model, loss and optimizer, as they are now.

Everything is read from the objects at every call, so nothing that changed since the last one (a
hook, a learning rate, a replaced parameter) can be missed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules import module as torch_module
from torch.optim import optimizer as torch_optimizer

from . import functional, nn, optim

__all__ = ["NativeModel", "NativeOptimizer", "recognise_loss", "recognise_model", "recognise_optimizer"]

LossFunction = torch.nn.Module | Callable[[Tensor, Tensor], Tensor]

_MODULE_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


class NativeModel(NamedTuple):
    """A model that has a kernel: which one, its parameters in the kernel's order, their names."""

    kernel: str
    names: tuple[str, ...]
    parameters: tuple[Tensor, ...]
    flat: bool
    """Whether a linear model's (n, k) prediction is flattened to (n k,)."""


class NativeOptimizer(NamedTuple):
    """What `torch.optim.SGD` would do to each parameter of a model."""

    settings: tuple[tuple[int, float, float, float, float, bool, bool, bool], ...]
    """For each trained parameter: its index, lr, momentum, dampening, weight decay, Nesterov,
    maximize, and whether its momentum buffer is fresh."""
    momenta: tuple[Tensor | None, ...]
    """For each parameter of the model, trained or not."""

    @property
    def lr(self) -> float:
        return max(setting[1] for setting in self.settings)


def _describe(value: object) -> str:
    return getattr(value, "__name__", None) or type(value).__name__


def _check_module(name: str, module: torch.nn.Module) -> None:
    state = module.__dict__
    for hooks in _MODULE_HOOKS:
        if state[hooks]:
            kind = hooks.strip("_").replace("_", " ").removesuffix("s")
            raise ValueError(f"{name}: expected no hooks, got a {kind} on {_describe(module)}")
    if "forward" in state:
        raise ValueError(f"{name}: expected {_describe(module)}'s own forward, got a replaced one")


def _parameters(name: str, module: torch.nn.Module, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    registered = module._parameters
    found = []
    for parameter_name in names:
        parameter = registered.get(parameter_name)
        if parameter is None:
            raise ValueError(
                f"{name}: expected {parameter_name} as a parameter of {_describe(module)}, "
                "got none (is it parametrised?)"
            )
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            raise ValueError(f"{name}: expected no hooks, got one on parameter {parameter_name}")
        found.append(parameter)
    return tuple(found)


def recognise_model(model: object) -> NativeModel:
    """The kernel that runs a model.

    Args:
        model: exactly a ``torch.nn.Linear``, a ``Sequential(Linear, Flatten)``, or a model of
            `gdcore.nn`.

    Raises:
        TypeError: it is something else.
        ValueError: it carries hooks, a replaced forward or parametrised weights.
    """
    if torch_module._has_any_global_hook():
        raise ValueError("model: expected no global module hooks, got some")
    linear, flat = model, False
    if type(model) is torch.nn.Sequential and len(model) == 2 and type(model[1]) is torch.nn.Flatten:
        _check_module("model", model)
        _check_module("model", model[1])
        linear = model[0]
        # Of a prediction (n, k), dimensions 0 and 1 are either flattened into one or left alone.
        flat = (model[1].start_dim % 2, model[1].end_dim % 2) == (0, 1)
    kind = type(linear)
    if kind is torch.nn.Linear or kind is nn.LinearRegression:
        _check_module("model", linear)
        names = ("weight",) if linear._parameters.get("bias") is None else ("weight", "bias")
        prefix = "" if linear is model else "0."
        parameters = _parameters("model", linear, names)
        return NativeModel("linear", tuple(prefix + name for name in names), parameters, flat)
    if kind is nn.PolynomialRegression:
        names, kernel = ("coefficients",), "polynomial"
    elif kind is nn.LegendreRegression:
        names, kernel = ("a", "b", "c", "d"), "legendre"
    else:
        raise TypeError(
            "model: expected exactly nn.Linear, Sequential(Linear, Flatten), or a model of "
            f"gdcore.nn, got {_describe(model)}, which is not recognised yet; write the step with "
            "gdcore.functional and gdcore.optim"
        )
    _check_module("model", model)
    return NativeModel(kernel, names, _parameters("model", model, names), False)


def recognise_loss(loss_fn: object) -> bool:
    """Whether a squared-error loss takes the mean (True) or the sum (False).

    Args:
        loss_fn: ``nn.MSELoss`` or `gdcore.nn.MSELoss` with mean or sum, ``F.mse_loss`` or
            `gdcore.functional.mse_loss`, whose default is the mean.

    Raises:
        TypeError: it is something else.
        ValueError: its reduction is ``"none"``, or it carries hooks.
    """
    if loss_fn is F.mse_loss or loss_fn is functional.mse_loss:
        return True
    if type(loss_fn) is not torch.nn.MSELoss and type(loss_fn) is not nn.MSELoss:
        raise TypeError(
            "loss_fn: expected nn.MSELoss, F.mse_loss or gdcore's, "
            f"got {_describe(loss_fn)}, which is not recognised yet"
        )
    _check_module("loss_fn", loss_fn)
    if loss_fn.reduction not in ("mean", "sum"):
        raise ValueError(f"loss_fn: expected reduction mean or sum, got {loss_fn.reduction!r}")
    return bool(loss_fn.reduction == "mean")


def recognise_optimizer(optimizer: object, model: NativeModel) -> NativeOptimizer:
    """What the optimizer will do to the model's parameters; fresh momentum buffers are made here.

    Args:
        optimizer: exactly ``torch.optim.SGD`` or `gdcore.optim.SGD`. Parameters that it does not
            hold, or that do not require grad, stay as they are.
        model: from `recognise_model`.

    Raises:
        TypeError: it is another optimizer.
        ValueError: it carries hooks, is differentiable, or trains none of the parameters.
    """
    if type(optimizer) is not torch.optim.SGD and type(optimizer) is not optim.SGD:
        raise TypeError(
            "optimizer: expected torch.optim.SGD or gdcore.optim.SGD, "
            f"got {_describe(optimizer)}, which is not recognised yet"
        )
    if (
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or torch_optimizer._global_optimizer_pre_hooks
        or torch_optimizer._global_optimizer_post_hooks
    ):
        raise ValueError("optimizer: expected no step hooks, got one")
    replaced = optimizer.__dict__.get("step")
    if replaced is not None and not hasattr(replaced, "_wrapped_by_lr_sched"):
        raise ValueError(f"optimizer: expected {_describe(optimizer)}'s own step, got a replaced one")
    settings: list[tuple[int, float, float, float, float, bool, bool, bool]] = []
    momenta: list[Tensor | None] = [None] * len(model.parameters)
    for group in optimizer.param_groups:
        for index, parameter in enumerate(model.parameters):
            if not parameter.requires_grad or not any(p is parameter for p in group["params"]):
                continue
            if group["differentiable"]:
                raise ValueError("optimizer: expected differentiable=False, got True")
            fresh = False
            if group["momentum"] != 0:
                buffer = optimizer.state[parameter].get("momentum_buffer")
                fresh = buffer is None
                momenta[index] = torch.empty_like(parameter.detach()) if fresh else buffer
            settings.append(
                (
                    index,
                    float(group["lr"]),
                    group["momentum"],
                    group["dampening"],
                    float(group["weight_decay"]),
                    group["nesterov"],
                    group["maximize"],
                    fresh,
                )
            )
    if not settings:
        raise ValueError(
            "optimizer: expected to hold a parameter of model that requires grad, got none"
        )
    return NativeOptimizer(tuple(settings), tuple(momenta))


def mark_stepped(optimizer: Any, model: NativeModel, plan: NativeOptimizer) -> None:
    """Leave the objects as an optimizer's own step would: buffers kept, versions moved on."""
    written = []
    for index, *_ in plan.settings:
        written.append(model.parameters[index])
        buffer = plan.momenta[index]
        if buffer is not None:
            optimizer.state[model.parameters[index]]["momentum_buffer"] = buffer
            written.append(buffer)
    torch.autograd.graph.increment_version(written)
    # torch's learning-rate schedulers look at this to see that the optimizer has stepped.
    optimizer._opt_called = True
