"""Stop rules and clipping inside the native loop."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gdcore._native.problem import Problem, StopRule
from gdcore._native.runners import CompressedRunner

from .problems import DTYPES, everything, linear, optimizer, same, twin

pytestmark = pytest.mark.usefixtures("device")

DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def sgd(problem: Problem, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD(problem.parameters, lr=lr)


def gradients(problem: Problem) -> list[Tensor]:
    weight, bias = problem.parameters
    loss = ((problem.x @ weight.T + bias - problem.y) ** 2).mean()
    trained = [p for p in problem.parameters if p.requires_grad]
    return list(torch.autograd.grad(loss, trained))


def norm(problem: Problem) -> float:
    return math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients(problem)))


def test_loss_below(stepwise: Any) -> None:
    problem = linear()
    other = twin(problem)
    losses = stepwise(other, sgd(other)).run(50).losses
    limit = losses[20].item() * (1 + 1e-12)
    ran = stepwise(problem, sgd(problem)).run(50, stop=StopRule(loss_below=limit))
    assert (ran.outcome, ran.epochs, ran.updates) == ("stopped", 21, 20)
    assert torch.equal(ran.losses, losses[:21])
    expected = twin(linear())
    stepwise(expected, sgd(expected)).run(20)
    assert all(map(torch.equal, problem.parameters, expected.parameters))


def test_gradient_norm_below(stepwise: Any) -> None:
    problem = linear()
    limit = 0.05
    runner = stepwise(problem, sgd(problem))
    ran = runner.run(10_000, stop=StopRule(gradient_norm_below=limit))
    assert ran.outcome == "stopped"
    assert norm(problem) < limit
    other = linear()
    stepwise(other, sgd(other)).run(ran.updates - 1)
    assert norm(other) >= limit


@pytest.mark.parametrize("cuts", [(2000,), (1,) * 400, (7,) * 80])
def test_no_improvement(cuts: tuple[int, ...], stepwise: Any) -> None:
    """A rate that overshoots at last: the best loss is remembered between runs."""
    problem = linear()
    with torch.no_grad():
        for parameter in problem.parameters:
            parameter.zero_()
    opt = torch.optim.SGD(problem.parameters, lr=0.05, momentum=0.99)
    runner, rule = stepwise(problem, opt), StopRule(no_improvement_for=5)
    losses: list[float] = []
    for epochs in cuts:
        ran = runner.run(epochs, stop=rule)
        losses += ran.losses.tolist()
        if ran.outcome == "stopped":
            break
    assert ran.outcome == "stopped"
    best = min(range(len(losses)), key=losses.__getitem__)
    assert len(losses) - 1 - best == 5
    since = [i - min(range(i + 1), key=losses.__getitem__) for i in range(len(losses))]
    assert max(since[:-1]) < 5


def test_what_holds_at_once(stepwise: Any) -> None:
    problem = linear()
    opt = optimizer("Adam", problem.parameters)
    before = everything(problem, opt)
    ran = stepwise(problem, opt).run(9, stop=StopRule(loss_below=1e9))
    assert (ran.outcome, ran.epochs, ran.updates) == ("stopped", 1, 0)
    assert same(before, everything(problem, opt))


def test_what_never_holds(stepwise: Any) -> None:
    problem, other = linear(), linear()
    rule = StopRule(0.0, 10**9, 0.0)
    ran = stepwise(problem, sgd(problem)).run(30, stop=rule)
    assert ran.outcome == "finished"
    assert torch.equal(ran.losses, stepwise(other, sgd(other)).run(30).losses)
    assert all(map(torch.equal, problem.parameters, other.parameters))


@DTYPE
@pytest.mark.parametrize("name", ["SGD with all options", "RMSprop", "Adam", "AdamW"])
@pytest.mark.parametrize("limit", [0.3, 1e9])
def test_clipping_as_torch_clips(
    name: str, dtype: torch.dtype, limit: float, stepwise: Any
) -> None:
    """Without cancellation, as in the optimizers' own test: sums of n + d terms, the norm's of all
    parameters, and at most 40 operations after them.
    """
    steps, unit = 4, torch.finfo(dtype).eps / 2
    roundings = steps * (40 + 3 + 8 + 40)
    problem = linear(dtype=dtype)
    with torch.no_grad():
        for parameter in problem.parameters:
            parameter.abs_().mul_(1e-3)
    problem = problem._replace(x=problem.x.abs(), y=problem.y.abs() + 100)
    other = twin(problem)
    mine, theirs = optimizer(name, problem.parameters), optimizer(name, other.parameters)
    stepwise(problem, mine, max_grad_norm=limit).run(steps)
    for _ in range(steps):
        theirs.zero_grad()
        for parameter, gradient in zip(other.parameters, gradients(other), strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(other.parameters, limit)
        theirs.step()
    for a, b in zip(everything(problem, mine), everything(other, theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=roundings * unit, atol=0)


@pytest.mark.parametrize("compressed", [False, True])
def test_the_norm_is_of_what_is_trained(compressed: bool, stepwise: Any) -> None:
    """A bias does not count that is frozen, or that the optimizer does not hold."""
    runner = CompressedRunner if compressed else stepwise
    for freeze in (True, False):
        problem = linear()
        weight, bias = problem.parameters
        bias.requires_grad_(not freeze)
        opt: Any = torch.optim.SGD([weight], lr=1.0)
        step, before = gradients(problem)[0], weight.detach().clone()
        trained = runner(problem, opt, max_grad_norm=step.norm().item() / 2)
        trained.run(1)
        trained.show()
        torch.testing.assert_close(before - weight, step / 2, rtol=1e-5, atol=0)


def test_a_gradient_that_is_not_finite(stepwise: Any) -> None:
    """torch's coefficient is then 0 or NaN, and the parameters end as NaN: the fit has diverged."""
    problem = linear(dtype=torch.float32)
    with torch.no_grad():
        problem.parameters[0].fill_(1e19)
    problem = problem._replace(x=problem.x * 1e10)
    ran = stepwise(problem, sgd(problem), max_grad_norm=1.0).run(5)
    assert ran.outcome == "diverged"
    assert all(p.isfinite().all() for p in problem.parameters)
