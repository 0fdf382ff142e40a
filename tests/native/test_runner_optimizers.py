"""The native loop makes every optimizer's updates, and leaves its state as its own step would."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gdcore._native.problem import Problem
from gdcore._native.runners import CompressedRunner

from .problems import (
    DTYPES,
    OPTIMIZERS,
    OURS,
    close,
    everything,
    linear,
    optimizer,
    same,
    step_by_parts,
    twin,
)

pytestmark = pytest.mark.usefixtures("device")

EVERY = pytest.mark.parametrize("name", OPTIMIZERS)
DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
ROUNDINGS = 40 + 3 + 10 + 30
"""A step's, as below: a gradient's sums and an update."""
MODULE = pytest.mark.parametrize("module", [torch.optim, OURS], ids=["torch", "gdcore"])


@EVERY
@DTYPE
@MODULE
@pytest.mark.parametrize("weighted", [False, True])
def test_as_the_parts_to_the_bit(
    name: str, dtype: torch.dtype, module: Any, weighted: bool, stepwise: Any, on_device: bool
) -> None:
    """The loop is the loss's op and the optimizer's step, one after the other. (CUDA's sums its
    gradients in another order than its op.)
    """
    problem = linear(dtype=dtype, weighted=weighted)
    other = twin(problem)
    mine, theirs = (
        optimizer(name, problem.parameters, module),
        optimizer(name, other.parameters, OURS),
    )
    ran = stepwise(problem, mine).run(7)
    losses = torch.stack([step_by_parts(other, theirs) for _ in range(7)]).cpu()
    ours = [ran.losses, *everything(problem, mine)]
    assert_same(ours, [losses, *everything(other, theirs)], 7 if on_device else 0)
    assert (ran.epochs, ran.updates, ran.outcome) == (7, 7, "finished")


def assert_same(ours: list[Tensor], theirs: list[Tensor], steps: int) -> None:
    """To the bit, or to what so many steps in two orders round."""
    if steps == 0:
        assert same(ours, theirs)
    else:
        close(ours, theirs, steps * ROUNDINGS)


def large_residuals(dtype: torch.dtype) -> Problem:
    """Targets far above all predictions of the first steps: nothing cancels anywhere."""
    problem = linear(dtype=dtype)
    with torch.no_grad():
        for parameter in problem.parameters:
            parameter.abs_().mul_(1e-3)
    return problem._replace(x=problem.x.abs(), y=problem.y.abs() + 100)


@EVERY
@DTYPE
@MODULE
def test_as_torch_to_rounding(name: str, dtype: torch.dtype, module: Any, stepwise: Any) -> None:
    """Native steps and torch's own take turns over one state: the numbers of torch alone.

    Without cancellation every operation adds at most one unit to a relative error: the gradient's
    sums have n + d of them, an update at most 30.
    """
    steps = 6
    n, d = 40, 3
    roundings = steps * (n + d + 10 + 30)
    unit = torch.finfo(dtype).eps / 2
    rtol = roundings * unit / (1 - roundings * unit)
    problem = large_residuals(dtype)
    other = twin(problem)
    mine = optimizer(name, problem.parameters, module)
    theirs = optimizer(name, other.parameters)
    runner = stepwise(problem, mine)
    for step in range(steps):
        if step % 3 == 2:
            plain_step(problem, mine)
        else:
            runner.run(1)
        plain_step(other, theirs)
    for a, b in zip(everything(problem, mine), everything(other, theirs), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=rtol, atol=0)
    keys = [[list(state) for state in o.state.values()] for o in (mine, theirs)]
    assert keys[0] == keys[1]


def plain_step(problem: Problem, optimizer: torch.optim.Optimizer) -> None:
    weight, bias = problem.parameters
    optimizer.zero_grad()
    loss = ((problem.x @ weight.T + bias - problem.y) ** 2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@EVERY
@DTYPE
def test_groups_with_settings_and_counts_of_their_own(
    name: str, dtype: torch.dtype, stepwise: Any, on_device: bool
) -> None:
    """The bias joins later, with a rate of its own."""
    problem = linear(dtype=dtype)
    other = twin(problem)
    results = []
    for each, native in ((problem, True), (other, False)):
        weight, bias = each.parameters
        opt = optimizer(name, [weight], OURS)
        runner = stepwise(each, opt)
        bias.requires_grad_(False)
        for _ in range(3):
            runner.run(1) if native else step_by_parts(each, opt)
        bias.requires_grad_()
        opt.add_param_group({"params": [bias], "lr": 0.007})
        for _ in range(3):
            runner.run(1) if native else step_by_parts(each, opt)
        results.append(everything(each, opt))
    assert_same(results[0], results[1], 6 if on_device else 0)


@EVERY
@DTYPE
@pytest.mark.parametrize("cuts", [(6,), (1, 1, 1, 1, 1, 1), (2, 0, 4), (5, 1)])
def test_however_it_is_cut(
    name: str, dtype: torch.dtype, cuts: tuple[int, ...], stepwise: Any
) -> None:
    whole, cut = linear(dtype=dtype), linear(dtype=dtype)
    opts = [optimizer(name, p.parameters) for p in (whole, cut)]
    expected = stepwise(whole, opts[0]).run(6)
    runner = stepwise(cut, opts[1])
    rans = [runner.run(epochs) for epochs in cuts]
    assert torch.equal(torch.cat([ran.losses for ran in rans]), expected.losses)
    assert same(everything(whole, opts[0]), everything(cut, opts[1]))


@pytest.mark.parametrize("name", ["SGD with all options", "RMSprop, centered", "Adam", "AdamW"])
def test_settings_are_read_at_every_run(name: str, stepwise: Any, on_device: bool) -> None:
    """A schedule, with a rate that is a number or a tensor."""
    problem = linear()
    results = []
    for tensor in (False, True):
        each = twin(problem)
        opt = optimizer(name, each.parameters)
        runner = stepwise(each, opt)
        for lr in (0.03, 0.01, 0.04):
            opt.param_groups[0]["lr"] = (
                torch.tensor(lr, dtype=torch.float64, device="cpu") if tensor else lr
            )
            runner.run(2)
        results.append(everything(each, opt))
    other = twin(problem)
    opt = optimizer(name, other.parameters, OURS)
    for lr in (0.03, 0.01, 0.04):
        opt.param_groups[0]["lr"] = lr
        for _ in range(2):
            step_by_parts(other, opt)
    assert_same(results[0], everything(other, opt), 6 if on_device else 0)
    assert same(results[0], results[1])


@EVERY
def test_a_state_that_was_loaded(name: str, stepwise: Any, on_device: bool) -> None:
    """torch's state dict in, and out again."""
    problem = linear()
    other = twin(problem)
    mine, theirs = optimizer(name, problem.parameters), optimizer(name, other.parameters, OURS)
    stepwise(problem, mine).run(4)
    theirs.load_state_dict(copy.deepcopy(mine.state_dict()))
    with torch.no_grad():
        for a, b in zip(problem.parameters, other.parameters, strict=True):
            b.copy_(a)
    stepwise(problem, mine).run(3)
    for _ in range(3):
        step_by_parts(other, theirs)
    assert_same(everything(problem, mine), everything(other, theirs), 3 if on_device else 0)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_nothing_is_written_by_no_epochs(name: str, stepwise: Any) -> None:
    problem = linear()
    opt = optimizer(name, problem.parameters)
    before, versions = everything(problem, opt), [p._version for p in problem.parameters]
    ran = stepwise(problem, opt).run(0)
    assert len(ran.losses) == 0
    assert not opt.state
    assert same(before, everything(problem, opt))
    assert versions == [p._version for p in problem.parameters]


def versions(problem: Problem, opt: torch.optim.Optimizer) -> list[int]:
    states = [value for state in opt.state.values() for value in state.values()]
    return [t._version for t in (*problem.parameters, *states)]


@EVERY
def test_versions_move_on(name: str, stepwise: Any) -> None:
    problem = linear()
    opt = optimizer(name, problem.parameters)
    runner = stepwise(problem, opt)
    runner.run(1)
    before = versions(problem, opt)
    runner.run(1)
    assert all(a < b for a, b in zip(before, versions(problem, opt), strict=True))


def test_a_count_in_float32_ends(stepwise: Any) -> None:
    """torch's counts stop at 2²⁴, and so do these."""
    problem = linear()
    opt = optimizer("Adam", problem.parameters)
    runner = stepwise(problem, opt)
    runner.run(1)
    for parameter in problem.parameters:
        opt.state[parameter]["step"].fill_(2.0**24 - 1)
    runner.run(3)
    assert [opt.state[p]["step"].item() for p in problem.parameters] == [2.0**24] * 2


REFUSED: dict[str, tuple[type[Exception], Any, str]] = {
    "differentiable": (ValueError, {"differentiable": True}, "differentiable=False"),
    "capturable": (ValueError, {"capturable": True}, "capturable=False"),
    "betas": (ValueError, {"betas": (torch.tensor(0.9), 0.99)}, "betas"),
    "eps": (ValueError, {"eps": "small"}, "numbers"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_settings_that_are_torchs_to_follow(what: str, stepwise: Any) -> None:
    kind, settings, part = REFUSED[what]
    problem = linear()
    opt = optimizer("Adam", problem.parameters)
    opt.param_groups[0].update(settings)
    before = everything(problem, opt)
    with pytest.raises(kind, match=rf"^optimizer: expected .*{part}.*got "):
        stepwise(problem, opt).run(2)
    assert same(before, everything(problem, opt))


def test_a_state_that_lacks_something(stepwise: Any) -> None:
    """amsgrad, switched on midway: torch has no largest average to go on from either."""
    problem = linear()
    opt = optimizer("Adam", problem.parameters)
    runner = stepwise(problem, opt)
    runner.run(1)
    opt.param_groups[0]["amsgrad"] = True
    before = everything(problem, opt)
    with pytest.raises(ValueError, match=r"^optimizer: expected a state max_exp_avg_sq"):
        runner.run(1)
    assert same(before, everything(problem, opt))


@pytest.mark.parametrize("which", ["another parameter's state", "x"])
def test_states_that_share_memory(which: str, stepwise: Any) -> None:
    problem = linear()
    opt = optimizer("Adam", problem.parameters)
    runner = stepwise(problem, opt)
    runner.run(1)
    weight, bias = problem.parameters
    shared = problem.x.view(-1) if which == "x" else opt.state[weight]["exp_avg_sq"].view(-1)
    opt.state[bias]["exp_avg"] = shared[: bias.numel()]
    before = everything(problem, opt)
    with pytest.raises(ValueError, match=r"^exp_avg: expected memory apart from"):
        runner.run(1)
    assert same(before, everything(problem, opt))


def frozen(problem: Problem) -> Tensor:
    return problem.parameters[1].detach().clone()


@EVERY
def test_a_frozen_parameter_stays(name: str, stepwise: Any) -> None:
    problem = linear()
    problem.parameters[1].requires_grad_(False)
    opt = optimizer(name, problem.parameters)
    before = frozen(problem)
    stepwise(problem, opt).run(3)
    assert torch.equal(before, problem.parameters[1])
    assert problem.parameters[1] not in opt.state


@pytest.mark.parametrize("rate", [np.float32(0.07), np.float64(0.07), np.int64(1)])
@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam"])
@pytest.mark.parametrize("compressed", [False, True])
def test_numbers_of_numpy_s(compressed: bool, name: str, rate: Any, stepwise: Any) -> None:
    """torch takes them, and a schedule whose factors are NumPy's makes some."""
    kind = CompressedRunner if compressed else stepwise
    problem = linear(dtype=torch.float64)
    other = twin(problem)
    mine, theirs = optimizer(name, problem.parameters), optimizer(name, other.parameters)
    mine.param_groups[0]["lr"], theirs.param_groups[0]["lr"] = rate, rate
    runner = kind(problem, mine)
    runner.run(3)
    runner.show()
    for _ in range(3):
        step_by_parts(other, theirs)
    for p, q in zip(problem.parameters, other.parameters, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)
