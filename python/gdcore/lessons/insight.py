"""The curvature of a lesson's cost, and where its runs end on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from gdcore import Curvature, curvature

from .lesson import Run, Settings, all_finite, numbers


def ended(run: Run) -> bool:
    return run.diverged is None and all_finite(run.final)


def of_model(model: nn.Module, settings: Settings, reduction: str = "mean") -> Curvature | None:
    """The curvature on the lesson's data; None where there is none that can be spoken of.

    The model is turned to float64 and stays what `Curvature.epochs_to` starts from.
    """
    x, y = settings.x.double(), settings.y.double()
    loss_fn = nn.MSELoss(reduction=reduction)
    with torch.no_grad():
        reach = (model.double()(x).abs().max() + x.abs().max() + y.abs().max()).item()
    # Squares of larger numbers overflow.
    if not reach < 1e100:
        return None
    found = curvature(model, loss_fn, (x, y))
    return found if found.rank else None


def at_end(model: nn.Module, run: Run) -> None:
    """Give a model's parameters the values that a run ended with."""
    ends = [one for name, value in run.final.items() if name != "cost" for one in numbers(value)]
    nn.utils.vector_to_parameters(torch.tensor(ends, dtype=torch.float64), model.parameters())


def flat(parameters: Mapping[str, Tensor]) -> Tensor:
    """Parameters by name as one vector."""
    return torch.cat([value.flatten() for value in parameters.values()])


def excess(found: Curvature, model: nn.Module) -> float:
    """How far the cost at a model's parameters is above the least one."""
    here = {name: value.detach()[None] for name, value in model.named_parameters()}
    away = found.along_directions(here)[0]
    return 0.5 * torch.dot(found.curvatures, away**2).item()


def half_life(factor: float) -> float:
    """Epochs, each of which leaves a factor of the way, until at most half of it is left."""
    left = abs(factor)
    if left <= 0.5:
        return 1
    return math.ceil(math.log(0.5) / math.log(left)) if left < 1 else math.inf


def second_derivative(function: Callable[[Tensor], Tensor], at: float) -> tuple[float, float]:
    """The first and the second derivative of a function of one number."""
    w = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(function(w), w, create_graph=True)
    (second,) = torch.autograd.grad(first, w) if first.requires_grad else (torch.zeros(()),)
    return first.item(), second.item()
