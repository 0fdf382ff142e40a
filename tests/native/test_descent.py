"""Few rows are descended on by a kernel of their own: the same to the bit as a step at a time.

A run that records its parameters goes a step at a time.
"""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gdcore import _ops
from gdcore._native.loop import NativeLoop, Ran
from gdcore._native.problem import Problem

from . import problems
from .problems import DTYPES, everything, same, twin

SGD = [name for name in problems.OPTIMIZERS if name.startswith("SGD")]
STEPS = 500


@pytest.fixture(params=_ops.available_instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    active = _ops.active_instruction_set()
    _ops.choose_instruction_set(request.param)
    yield request.param
    _ops.choose_instruction_set(active)


def run(
    problem: Problem, optimizer: torch.optim.Optimizer, epochs: int, record_every: int
) -> tuple[Ran, list[Tensor]]:
    state = optimizer.state
    loop = NativeLoop(problem, optimizer, None, problem.x.dtype)
    ran = loop(optimizer.param_groups, state, epochs, record_every, None, None, None)
    return ran, everything(problem, optimizer)


def both(problem: Problem, name: str, epochs: int = STEPS) -> Iterator[tuple[Ran, list[Tensor]]]:
    for record_every in (0, 1):
        own = twin(problem)
        optimizer = problems.optimizer(name, own.parameters)
        yield run(own, optimizer, epochs, record_every)


@pytest.mark.parametrize("name", SGD)
@pytest.mark.parametrize("dtype", DTYPES)
def test_descent_is_a_step_at_a_time(dtype: torch.dtype, name: str, instruction_set: str) -> None:
    """On numbers of rows and columns to both sides of the kernel's limits, and of a group's."""
    sizes = [
        *itertools.product((1, 3, 4, 5, 8, 9, 16, 17, 40, 64, 65), (1, 2, 4, 5, 8, 9)),
        (33, 3),
        (31, 6),
        (63, 7),
    ]
    for rows, columns in sizes:
        problem = problems.linear(rows, columns, 1, dtype, seed=rows)
        (at_once, ours), (stepwise, theirs) = both(problem, name)
        assert at_once.outcome == stepwise.outcome == "finished"
        assert torch.equal(at_once.losses, stepwise.losses), (rows, columns)
        assert same(ours, theirs), (rows, columns)
        assert not same(ours[:2], list(problem.parameters))


@pytest.mark.parametrize("name", SGD)
@pytest.mark.parametrize("dtype", DTYPES)
def test_descent_without_a_bias(dtype: torch.dtype, name: str) -> None:
    for rows, columns in itertools.product((3, 8, 16, 50), range(1, 9)):
        whole = problems.linear(rows, columns, 1, dtype)
        problem = whole._replace(names=("weight",), parameters=whole.parameters[:1])
        (at_once, ours), (stepwise, theirs) = both(problem, name)
        assert torch.equal(at_once.losses, stepwise.losses)
        assert same(ours, theirs)


@pytest.mark.parametrize("rows", [3, 7, 40])
@pytest.mark.parametrize("dtype", DTYPES)
def test_descent_that_diverges(dtype: torch.dtype, rows: int) -> None:
    """Ends at the same step, with the same last finite parameters."""
    problem = problems.linear(rows, 2, 1, dtype)
    for factor in (1e3, 1e30):
        far = problem._replace(x=problem.x * factor)
        (at_once, ours), (stepwise, theirs) = both(far, "SGD", 10_000)
        assert at_once.outcome == stepwise.outcome == "diverged"
        assert at_once.updates == stepwise.updates
        assert torch.equal(at_once.losses, stepwise.losses)
        assert same(ours, theirs)
        assert all(p.isfinite().all() for p in ours)


def test_descent_on_any_layout() -> None:
    """Columns apart, rows reversed, one row again and again."""
    for rows in (6, 37):
        check_any_layout(rows)


def check_any_layout(rows: int) -> None:
    problem = problems.linear(rows, 3, 1, torch.float32)
    (plain, ours), _ = both(problem, "SGD")
    apart = torch.empty(3, 100, dtype=torch.float32).T[::2][:rows]
    apart.copy_(problem.x)
    strided = torch.empty(rows, 7, dtype=torch.float32)[:, 3:4]
    strided.copy_(problem.y)
    (other, theirs), _ = both(problem._replace(x=apart, y=strided), "SGD")
    assert torch.equal(plain.losses, other.losses)
    assert same(ours, theirs)
    again = problem._replace(x=problem.x[:1].expand(rows, 3), y=problem.y[:1].expand(rows, 1))
    (at_once, ours), (stepwise, theirs) = both(again, "SGD")
    assert torch.equal(at_once.losses, stepwise.losses)
    assert same(ours, theirs)


def test_descent_in_pieces() -> None:
    """Chunks of a fit go on where the last has ended, the momentum included."""
    problem = problems.linear(4, 3, 1, torch.float32)
    (_, whole), _ = both(problem, "SGD with all options", 300)
    own = twin(problem)
    optimizer = problems.optimizer("SGD with all options", own.parameters)
    for epochs in (1, 7, 92, 200):
        _, parts = run(own, optimizer, epochs, 0)
    assert same(whole, parts)
