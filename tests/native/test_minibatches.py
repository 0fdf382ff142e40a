"""Epochs in minibatches: to the bit what steps on x[order[i : i + size]] give."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from gdcore import _ops
from gdcore._native.problem import Problem, StopRule
from gdcore._native.runners import CompressedRunner, StepwiseRunner

from .problems import (
    DTYPES,
    OURS,
    close,
    everything,
    linear,
    optimizer,
    rows_of,
    same,
    step_by_parts,
    twin,
)

DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def shuffled(rows: int, seed: int = 1) -> Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed), device="cpu")


ORDERS: dict[str, Any] = {
    "as they lie": lambda n: None,
    "as they lie, in words": lambda n: torch.arange(n, device="cpu"),
    "shuffled": shuffled,
    "backwards": lambda n: torch.arange(n, device="cpu").flip(0),
    "with replacement": lambda n: torch.randint(
        n, (2 * n,), generator=torch.Generator().manual_seed(2), device="cpu"
    ),
    "some": lambda n: shuffled(n)[: n // 2],
    "every second of a tensor": lambda n: torch.arange(2 * n, device="cpu")[::2] % n,
}


@pytest.mark.usefixtures("device")
@DTYPE
@pytest.mark.parametrize("size", [1, 7, 16, 64, 1000])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_as_steps_on_the_rows(
    dtype: torch.dtype, size: int, order: str, weighted: bool, stepwise: Any
) -> None:
    problem = linear(67, dtype=dtype, weighted=weighted)
    other = twin(problem)
    mine, theirs = (optimizer("Adam", p.parameters) for p in (problem, other))
    rows = ORDERS[order](67)
    ran = stepwise(problem, mine).run(1, order=rows, batch_size=size)
    rows = torch.arange(67, device="cpu") if rows is None else rows
    batches = rows.split(size)
    losses = torch.cat([stepwise(rows_of(other, batch), theirs).run(1).losses for batch in batches])
    assert ran.step_losses is not None
    assert torch.equal(ran.step_losses, losses)
    assert same(everything(problem, mine), everything(other, theirs))
    sizes = torch.tensor([len(b) for b in batches], dtype=torch.float64, device="cpu")
    mean = (losses.double() * sizes).sum() / sizes.sum()
    assert torch.equal(ran.losses, mean.to(dtype).reshape(1))
    assert (ran.epochs, ran.updates, ran.outcome) == (1, len(batches), "finished")


@DTYPE
def test_batches_of_data_past_the_cache(dtype: torch.dtype) -> None:
    """Rows that lie far from the core are taken in other blocks than those of a batch alone."""
    rows, size = 2000, 200
    problem = linear(rows, 40, 1, dtype)
    other = twin(problem)
    mine, theirs = (optimizer("SGD", p.parameters) for p in (problem, other))
    StepwiseRunner(problem, mine).run(1, batch_size=size)
    for batch in torch.arange(rows).split(size):
        StepwiseRunner(rows_of(other, batch), theirs).run(1)
    assert same(everything(problem, mine), everything(other, theirs))


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("layout", ["columns apart", "expanded", "every second row"])
@pytest.mark.parametrize("order", ["as they lie", "shuffled"])
def test_rows_that_lie_apart(layout: str, order: str, stepwise: Any) -> None:
    problem = linear(50)
    x, y = problem.x, problem.y
    if layout == "columns apart":
        x, y = x.T.contiguous().T, y.T.contiguous().T
    elif layout == "expanded":
        x, y = x[:1].expand(50, -1), y[:, :1].expand(-1, 2)
    else:
        x, y = (t.repeat_interleave(2, 0)[::2] for t in (x, y))
    problem = problem._replace(x=x, y=y)
    other = twin(problem)._replace(x=x.contiguous(), y=y.contiguous())
    results = []
    for each in (problem, other):
        opt = optimizer("SGD", each.parameters)
        stepwise(each, opt).run(1, order=ORDERS[order](50), batch_size=8)
        results.append(everything(each, opt))
    assert same(*results)


@pytest.mark.usefixtures("device")
def test_as_the_parts(stepwise: Any, on_device: bool) -> None:
    """Against the ops themselves, over several epochs and schedules."""
    problem = linear(90, 5, 1, torch.float32)
    other = twin(problem)
    mine = optimizer("SGD with all options", problem.parameters)
    theirs = optimizer("SGD with all options", other.parameters, OURS)
    runner = stepwise(problem, mine)
    for epoch in range(3):
        order = shuffled(90, epoch)
        mine.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = 0.1 / (1 + epoch)
        runner.run(1, order=order, batch_size=32)
        for batch in order.split(32):
            step_by_parts(rows_of(other, batch), theirs)
    ends = everything(problem, mine), everything(other, theirs)
    if on_device:  # where the loss's op sums in another order
        close(*ends, 9 * (32 + 5 + 10 + 30))
    else:
        assert same(*ends)


@pytest.mark.usefixtures("device")
@DTYPE
@pytest.mark.parametrize("kernel", ["polynomial", "legendre", "indexed"])
@pytest.mark.parametrize("weighted", [False, True])
def test_other_kernels(kernel: str, dtype: torch.dtype, weighted: bool, stepwise: Any) -> None:
    problem = of_kernel(kernel, dtype, weighted)
    other = twin(problem)
    mine, theirs = (optimizer("SGD", p.parameters) for p in (problem, other))
    order = shuffled(45)
    stepwise(problem, mine).run(1, order=order, batch_size=10)
    for batch in order.split(10):
        stepwise(rows_of(other, batch), theirs).run(1)
    assert same(everything(problem, mine), everything(other, theirs))


def of_kernel(kernel: str, dtype: torch.dtype, weighted: bool) -> Problem:
    generator = torch.Generator().manual_seed(3)

    there = torch.get_default_device()

    def random(*shape: int) -> Tensor:
        made = torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu")
        return made.to(there, dtype) - 0.5

    if kernel == "indexed":
        parameters: tuple[Tensor, ...] = (random(2), random(2, 1))
        index = torch.tensor([[0, 1, 3], [2, -1, 0]], device="cpu")
        x, y = random(45, 3), random(45, 2)
    else:
        parameters = (random(4),) if kernel == "polynomial" else tuple(random(4))
        index, x, y = None, random(45), random(45)
    weight = random(*y.shape).abs() if weighted else None
    parameters = tuple(torch.nn.Parameter(p) for p in parameters)
    names = tuple(f"p{i}" for i in range(len(parameters)))
    return Problem(kernel, names, parameters, x, y, weight, True, False, index)


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("instruction_set", _ops.available_instruction_sets())
def test_large_batches_are_shared(threads: int, instruction_set: str) -> None:
    """Batches of several chunks, gathered by several threads: the bits of one."""
    problem = linear(30_000, 20, 1, torch.float32)
    before, active = torch.get_num_threads(), _ops.active_instruction_set()
    results = []
    try:
        for count, chosen in ((1, active), (threads, instruction_set)):
            torch.set_num_threads(count)
            _ops.choose_instruction_set(chosen)
            each = twin(problem)
            opt = optimizer("Adam", each.parameters)
            StepwiseRunner(each, opt).run(1, order=shuffled(30_000), batch_size=14_000)
            results.append(everything(each, opt))
    finally:
        torch.set_num_threads(before)
        _ops.choose_instruction_set(active)
    assert same(*results)


@pytest.mark.usefixtures("device")
def test_a_rule_watches_whole_epochs(stepwise: Any) -> None:
    problem = linear(64)
    runner = stepwise(problem, optimizer("SGD", problem.parameters))
    rule = StopRule(no_improvement_for=3)
    outcomes: list[str] = []
    while not outcomes or outcomes[-1] == "finished":
        ran = runner.run(1, order=torch.arange(64, device="cpu"), batch_size=16, stop=rule)
        outcomes.append(ran.outcome)
        assert len(outcomes) < 10_000
    assert outcomes[-1] == "stopped"
    assert len(outcomes) > 4
    with pytest.raises(ValueError, match="gradient_norm_below"):
        runner.run(1, batch_size=16, stop=StopRule(gradient_norm_below=1.0))


@pytest.mark.usefixtures("device")
def test_divergence_within_an_epoch(stepwise: Any) -> None:
    problem = linear(64, dtype=torch.float32)
    opt = torch.optim.SGD(problem.parameters, lr=1e10)
    ran = stepwise(problem, opt).run(1, batch_size=4)
    assert ran.outcome == "diverged"
    assert ran.step_losses is not None
    assert ran.updates == len(ran.step_losses) - 1
    assert not ran.losses.isfinite().any()
    assert not ran.step_losses[-1].isfinite()
    assert all(p.isfinite().all() for p in problem.parameters)


@pytest.mark.usefixtures("device")
def test_a_record_is_of_the_epochs_end(stepwise: Any) -> None:
    problem = linear(20)
    runner = stepwise(problem, optimizer("SGD", problem.parameters))
    ran = runner.run(1, batch_size=6, record_every=1)
    ends = torch.cat([p.detach().reshape(-1).cpu() for p in problem.parameters])
    assert ran.records is not None
    assert torch.equal(ran.records, ends.unsqueeze(0))


@pytest.mark.parametrize("row", [-1, 40])
def test_rows_that_are_not_there(row: int) -> None:
    problem = linear(40)
    opt = optimizer("SGD", problem.parameters)
    before = everything(problem, opt)
    with pytest.raises(ValueError, match=rf"^order: expected rows from 0 to 39, got {row}$"):
        StepwiseRunner(problem, opt).run(1, order=torch.tensor([3, row]), batch_size=2)
    with pytest.raises(TypeError, match=r"^order: expected dtype torch.int64, got torch.int32$"):
        StepwiseRunner(problem, opt).run(1, order=torch.arange(4).int(), batch_size=2)
    assert same(before, everything(problem, opt))


def test_not_for_compressed_rows() -> None:
    problem = linear(40)
    with pytest.raises(ValueError, match="full batch"):
        CompressedRunner(problem, optimizer("SGD", problem.parameters)).run(1, batch_size=2)


INTERRUPTED = """
import signal, time, torch
from gdcore._native.problem import Problem
from gdcore._native.runners import StepwiseRunner

class Stopped(Exception):
    pass

def handle(number, frame):
    global answered
    answered = time.monotonic()
    raise Stopped

def problem():
    torch.manual_seed(0)
    x, y = torch.randn(200_000, 8), torch.randn(200_000, 1)
    parameters = (torch.nn.Parameter(torch.zeros(1, 8)), torch.nn.Parameter(torch.zeros(1)))
    return Problem("linear", ("weight", "bias"), parameters, x, y, None, True)

signal.signal(signal.SIGALRM, handle)
p, q = problem(), problem()
order = torch.randint(200_000, (20_000_000,))
runner = StepwiseRunner(p, torch.optim.SGD(p.parameters, lr=0.01))
signal.setitimer(signal.ITIMER_REAL, 0.3)
sent = time.monotonic() + 0.3
ran = runner.run(1, order=order, batch_size=4)
assert answered - sent < 5.0 and time.monotonic() - answered < 5.0  # busy as it may be
assert ran.outcome == "interrupted" and isinstance(ran.raised, Stopped), ran
assert ran.epochs == 0 and 0 < ran.updates == len(ran.step_losses) < 5_000_000, ran
other = StepwiseRunner(q, torch.optim.SGD(q.parameters, lr=0.01))
again = other.run(1, order=order[: 4 * ran.updates], batch_size=4)
assert torch.equal(again.step_losses, ran.step_losses)
assert all(map(torch.equal, p.parameters, q.parameters))
"""


def test_ctrl_c_between_batches() -> None:
    """Soon, and all is as after exactly the batches that ended."""
    subprocess.run([sys.executable, "-c", INTERRUPTED], check=True, timeout=120)
