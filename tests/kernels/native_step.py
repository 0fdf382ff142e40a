"""The native steps on bare tensors: what `gdcore.optim` gives them, without its classes."""

from typing import Any

import torch
from torch import Tensor

from gdcore import _ops

STEPS = {"SGD": _ops.Step("sgd"), "RMSprop": _ops.Step("rmsprop"), "Adam": _ops.Step("adam")}
DEFAULTS: dict[str, dict[str, Any]] = {
    "SGD": {
        "momentum": 0.0,
        "dampening": 0.0,
        "weight_decay": 0.0,
        "nesterov": False,
        "maximize": False,
        "differentiable": False,
    },
    "RMSprop": {
        "alpha": 0.99,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "momentum": 0.0,
        "centered": False,
        "maximize": False,
        "differentiable": False,
        "capturable": False,
    },
    "Adam": {
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.0,
        "decoupled_weight_decay": False,
        "amsgrad": False,
        "maximize": False,
        "differentiable": False,
        "capturable": False,
        "foreach": None,
    },
}


def states_of(name: str, settings: dict[str, Any]) -> list[str]:
    """The tensors beside parameter and gradient that these settings use."""
    settings = {**DEFAULTS[name], **settings}
    if name == "SGD":
        return ["momentum_buffer"] if settings["momentum"] != 0 else []
    if name == "RMSprop":
        wanted = {"momentum_buffer": settings["momentum"] > 0, "grad_avg": settings["centered"]}
        return ["square_avg", *(key for key, used in wanted.items() if used)]
    return ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * settings["amsgrad"]


def zeros(name: str, settings: dict[str, Any], p: Tensor) -> dict[str, Tensor]:
    """A state before the first step, its counter included; none for SGD."""
    if name == "SGD":
        return {}
    return {
        "step": torch.tensor(0.0),
        **{key: torch.zeros_like(p) for key in states_of(name, settings)},
    }


def step(
    name: str,
    parameters: list[Tensor],
    grads: list[Tensor],
    states: list[dict[str, Tensor]],
    fresh: list[dict[str, Tensor]] | None = None,
    **settings: Any,
) -> None:
    """One step of one group, in place. ``fresh`` holds the states of those that have none yet."""
    for p, grad in zip(parameters, grads, strict=True):
        p.grad = grad
    group = {"params": parameters, **DEFAULTS[name], **settings}
    given = None if fresh is None else dict(zip(parameters, fresh, strict=True))
    left = STEPS[name]([group], dict(zip(parameters, states, strict=True)), given)
    assert left is None, "not native"


def sgd(
    parameters: list[Tensor],
    grads: list[Tensor],
    buffers: list[Tensor],
    fresh: list[bool],
    **settings: Any,
) -> None:
    """A step of SGD with momentum buffers, of which those that are fresh are not read."""
    buffer = [{"momentum_buffer": b} for b in buffers]
    known = [{} if new else b for new, b in zip(fresh, buffer, strict=True)]
    step("SGD", parameters, grads, known, buffer, **settings)
