"""Indexed features: weights taken from θ, gradients summed over the places where they stand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gdcore import _ops
from gdcore._native.problem import Problem
from gdcore._native.runners import StepwiseRunner

from .problems import DTYPES, close, everything, linear, optimizer, same, twin

DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)

INDICES: dict[str, list[list[int]]] = {
    "one weight everywhere": [[0, 0, 0], [0, 0, 0]],
    "tied over outputs": [[0, 1, 2], [2, 1, 0]],
    "tied within an output": [[0, 0, 1], [3, 4, 4]],
    "some absent": [[0, -1, 1], [-1, 2, -1]],
    "all absent in an output": [[-1, -1, -1], [4, 3, 2]],
    "in place": [[0, 1, 2], [3, 4, 5]],
    "transposed": [[0, 2, 4], [1, 3, 5]],
    "one output": [[5, 0, 3]],
}


def problem_of(index: list[list[int]], dtype: torch.dtype, *, weighted: bool = False) -> Problem:
    generator = torch.Generator().manual_seed(0)

    there = torch.get_default_device()

    def random(*shape: int) -> Tensor:
        made = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
        return made.to(there, dtype)

    places = torch.tensor(index, device="cpu")
    outputs = len(index)
    x, y = random(60, 3).abs(), random(60, outputs).abs() + 100
    weight = random(60, outputs).abs() if weighted else None
    parameters = (nn.Parameter(random(2, 2).abs()), nn.Parameter(random(2).abs()))
    return Problem("indexed", ("a", "b"), parameters, x, y, weight, True, False, places)


def plain_loss(problem: Problem) -> Tensor:
    theta = torch.cat([p.reshape(-1) for p in problem.parameters] + [problem.x.new_zeros(1)])
    assert problem.index is not None
    squares = (problem.x @ theta[problem.index].T - problem.y) ** 2
    if problem.weight is None:
        return squares.mean()
    return (problem.weight * squares).sum() / problem.weight.sum()


@pytest.mark.usefixtures("device")
@DTYPE
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize("index", INDICES)
def test_as_autograd(
    index: str, name: str, dtype: torch.dtype, weighted: bool, stepwise: Any
) -> None:
    """Nothing cancels: sums of n rows, of q features and of at most 6 places, and an update."""
    steps, unit = 3, torch.finfo(dtype).eps / 2
    roundings = steps * (60 + 3 + 6 + 10 + 30)
    problem = problem_of(INDICES[index], dtype, weighted=weighted)
    other = twin(problem)
    mine, theirs = optimizer(name, problem.parameters), optimizer(name, other.parameters)
    losses = stepwise(problem, mine).run(steps).losses
    expected = []
    for _ in range(steps):
        theirs.zero_grad()
        loss = plain_loss(other)
        loss.backward()
        theirs.step()
        expected.append(loss.detach())
    rtol = roundings * unit
    torch.testing.assert_close(losses, torch.stack(expected).cpu(), rtol=rtol, atol=0)
    for a, b in zip(everything(problem, mine), everything(other, theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=0)


@pytest.mark.usefixtures("device")
@DTYPE
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_in_place_are_the_linear_model_to_the_bit(
    dtype: torch.dtype, weighted: bool, stepwise: Any, on_device: bool
) -> None:
    problem = linear(dtype=dtype, weighted=weighted)
    weight = nn.Parameter(problem.parameters[0].detach().clone())
    plain = problem._replace(parameters=(weight,), names=("weight",))
    indexed = twin(plain)._replace(
        kernel="indexed", index=torch.arange(6, device="cpu").reshape(2, 3)
    )
    opts = [optimizer("Adam", p.parameters) for p in (plain, indexed)]
    losses = [stepwise(p, o).run(5).losses for p, o in zip((plain, indexed), opts, strict=True)]
    ends = [everything(p, o) for p, o in zip((plain, indexed), opts, strict=True)]
    if on_device:  # two kernels, whose sums have orders of their own
        close([losses[0], *ends[0]], [losses[1], *ends[1]], 5 * (40 + 3 + 10 + 30))
        return
    assert torch.equal(*losses)
    assert same(*ends)


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("instruction_set", _ops.available_instruction_sets())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits(threads: int, instruction_set: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(20_000, c, generator=generator, dtype=dtype) for c in (12, 2))
    index = torch.randint(-1, 15, (2, 12), generator=generator)
    start = torch.randn(15, generator=generator, dtype=dtype)
    before, active, results = torch.get_num_threads(), _ops.active_instruction_set(), []
    try:
        for count, chosen in ((1, active), (threads, instruction_set)):
            torch.set_num_threads(count)
            _ops.choose_instruction_set(chosen)
            theta = nn.Parameter(start.clone())
            problem = Problem("indexed", ("θ",), (theta,), x, y, None, True, False, index)
            opt = optimizer("RMSprop with all options", [theta])
            losses = StepwiseRunner(problem, opt).run(4).losses
            results.append([losses, *everything(problem, opt)])
    finally:
        torch.set_num_threads(before)
        _ops.choose_instruction_set(active)
    assert same(*results)


def test_an_index_that_does_not_fit() -> None:
    problem = problem_of([[0, 1, 2]], torch.float64)
    opt = optimizer("SGD", problem.parameters)
    for places, kind, message in (
        ([[0, 1, 6]], ValueError, r"^index: expected places from -1 to 5, got 6$"),
        ([[0, -2, 1]], ValueError, r"^index: expected places from -1 to 5, got -2$"),
        ([0, 1, 2], ValueError, r"^index: expected shape \(k, q\), got \(3,\)$"),
        ([[0.0, 1.0, 2.0]], TypeError, r"^index: expected dtype torch.int64"),
    ):
        wrong = problem._replace(index=torch.tensor(places))
        with pytest.raises(kind, match=message):
            StepwiseRunner(wrong, opt)
    with pytest.raises(ValueError, match=r"^x: expected shape \(n, 2\)"):
        StepwiseRunner(problem._replace(index=torch.tensor([[0, 1]])), opt).run(1)
    with pytest.raises(ValueError, match=r"^y: expected shape \(60, 2\)"):
        StepwiseRunner(problem._replace(index=torch.zeros(2, 3).long()), opt).run(1)
