"""The four optimizers, their namesakes, and steps of both over the same gradients."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

import gdcore

NAMES = ("SGD", "RMSprop", "Adam", "AdamW")
# Options that use every state.
FULL: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
    "RMSprop": {"lr": 0.05, "alpha": 0.8, "momentum": 0.5, "centered": True, "weight_decay": 0.01},
    "Adam": {"lr": 0.1, "betas": (0.8, 0.9), "amsgrad": True, "weight_decay": 0.01},
    "AdamW": {"lr": 0.1, "betas": (0.8, 0.9), "amsgrad": True, "weight_decay": 0.01},
}


def ours(name: str, parameters: Any, **options: Any) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = getattr(gdcore.optim, name)(parameters, **options)
    return optimizer


def theirs(name: str, parameters: Any, **options: Any) -> torch.optim.Optimizer:
    options = {"foreach": False, **options}
    optimizer: torch.optim.Optimizer = getattr(torch.optim, name)(parameters, **options)
    return optimizer


MAKERS = {"gdcore": ours, "torch": theirs}


def copies(values: Iterable[Tensor]) -> list[Parameter]:
    """Parameters with the values' own strides."""
    return [Parameter(v.new_empty_strided(v.shape, v.stride()).copy_(v)) for v in values]


def give(parameters: Sequence[Tensor], grads: Sequence[Tensor | None]) -> None:
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = None if grad is None else grad.clone()


def held(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def advance(optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Steps whose gradients depend on the step's number and the parameter's place only."""
    for step in steps:
        for i, parameter in enumerate(held(optimizer)):
            generator = torch.Generator().manual_seed(100 * step + i)
            grad = torch.randn(
                parameter.shape, generator=generator, dtype=torch.float64, device="cpu"
            )
            parameter.grad = grad.to(parameter.device, parameter.dtype)
        optimizer.step()


def everything(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Parameters, then states in the order of their names. Where steps are counted is a matter of
    torch's: RMSprop's on the default device.
    """
    parameters = held(optimizer)
    states = [optimizer.state.get(p, {}) for p in parameters]
    tensors = [(key, state[key]) for state in states for key in sorted(state)]
    return [*parameters, *(t.cpu() if key == "step" else t for key, t in tensors)]


def start(dtype: torch.dtype = torch.float64) -> Parameter:
    generator = torch.Generator().manual_seed(7)
    values = torch.randn(9, generator=generator, dtype=torch.float64, device="cpu")
    return Parameter(values.to(torch.get_default_device(), dtype))


def close(actual: list[Tensor], expected: list[Tensor]) -> None:
    """In float64, a few dozen steps of numbers around 1: 1e-12 is thousands of roundings, and far
    less than any step."""
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        torch.testing.assert_close(a.detach(), e.detach(), rtol=1e-12, atol=1e-12)
