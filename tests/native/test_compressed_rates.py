"""The curvature of a compressed problem, and the largest learning rate with which it converges."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gdcore._native.problem import Problem
from gdcore._native.runners import CompressedRunner

from ..devices import NOT_EMULATED
from .problems import linear

# The factorisation is torch's operations where it is not on the CPU.
pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]


def hessian(problem: Problem) -> Tensor:
    """Of the loss, over the parameters that are trained, by autograd."""
    trained = [p for p in problem.parameters if p.requires_grad]
    weight, bias = problem.parameters
    w = torch.ones_like(problem.y) if problem.weight is None else problem.weight
    loss = (w * (problem.x @ weight.T + bias - problem.y) ** 2).sum()
    loss = loss / w.sum() if problem.mean else loss
    gradient = torch.cat(
        [g.reshape(-1) for g in torch.autograd.grad(loss, trained, create_graph=True)]
    )
    columns = [torch.autograd.grad(g, trained, retain_graph=True) for g in gradient]
    return torch.stack([torch.cat([part.reshape(-1) for part in c]) for c in columns])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("freeze", [None, 0, 1])
def test_singular_values(weighted: bool, mean: bool, freeze: int | None) -> None:
    """Twice their squares are the Hessian's eigenvalues."""
    problem = linear(50, 3, 2, weighted=weighted, mean=mean)
    if freeze is not None:
        problem.parameters[freeze].requires_grad_(False)
    runner = CompressedRunner(problem, torch.optim.SGD(problem.parameters, lr=0.1))
    curvatures = 2 * runner.singular_values**2
    eigenvalues = torch.linalg.eigvalsh(hessian(problem)).flip(0).cpu()
    if len(curvatures) < len(eigenvalues):  # the outputs share them
        curvatures = curvatures.repeat_interleave(2)
    torch.testing.assert_close(curvatures, eigenvalues, rtol=1e-12, atol=1e-12)


RATES: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "dampening": {"momentum": 0.9, "dampening": 0.5},
    "Nesterov": {"momentum": 0.9, "nesterov": True},
    "weight decay": {"weight_decay": 0.5, "momentum": 0.3},
}


@pytest.mark.parametrize("settings", RATES)
def test_the_largest_stable_rate(settings: str) -> None:
    """Just below it the fit converges, just above it does not."""
    grows = []
    for factor in (0.98, 1.02):
        problem = linear(80, 3, 1)
        opt = torch.optim.SGD(problem.parameters, lr=0.1, **RATES[settings])
        runner = CompressedRunner(problem, opt)
        rate = runner.largest_stable_lr
        assert rate is not None
        opt.param_groups[0]["lr"] = factor * rate
        losses = runner.run(3000).losses
        grows.append(bool(losses[-1] > losses[0]) or not losses[-1].isfinite())
    assert grows == [False, True]


@pytest.mark.parametrize("what", ["Adam", "maximize", "groups", "clipping"])
def test_no_rate_is_known(what: str) -> None:
    problem = linear(80)
    weight, bias = problem.parameters
    opt: torch.optim.Optimizer = torch.optim.SGD(
        [weight, bias], lr=0.1, maximize=what == "maximize"
    )
    if what == "Adam":
        opt = torch.optim.Adam([weight, bias])
    if what == "groups":
        groups = [{"params": [weight]}, {"params": [bias], "momentum": 0.5}]
        opt = torch.optim.SGD(groups, lr=0.1)
    clip = 1.0 if what == "clipping" else None
    assert CompressedRunner(problem, opt, max_grad_norm=clip).largest_stable_lr is None
