"""Orders that the native loop draws: torch's own, row for row and draw for draw."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import gdcore
from gdcore import _ops
from gdcore._loop.batches import Batches
from gdcore._loop.rows import rows_of
from gdcore._native import shuffle
from gdcore._native.runners import StepwiseRunner
from gdcore._native.shuffle import Shuffled, rows_in

from ..api.drawing import drawn_on_cpu
from .problems import everything, linear, optimizer, same, twin

# From here on rows are drawn natively; and the loop takes a second thread to gather with from
# 2^17 elements on.
NATIVE = 4096
ROWS, COLUMNS = 20_000, 8


def generator(drawn: int, seed: int = 3) -> torch.Generator:
    """One that stands behind so many numbers of its block of 624, or another."""
    start = torch.Generator().manual_seed(seed)
    torch.empty(drawn, dtype=torch.int32).random_(generator=start)
    return start


@pytest.mark.parametrize("n", [1, 2, 3, 624, 625, 626, 5_000, 100_001])
@pytest.mark.parametrize("drawn", [0, 1, 300, 623, 624, 625, 1248])
def test_rows_and_generator_are_those_of_torch(n: int, drawn: int) -> None:
    theirs = generator(drawn)
    skipped = theirs.get_state()
    for _ in range(3):
        state = theirs.get_state()
        assert torch.equal(state, skipped)
        rows = torch.empty(n, dtype=torch.int64)
        _ops.shuffle(state, n, rows)
        assert torch.equal(rows, torch.randperm(n, generator=theirs))
        assert torch.equal(state, theirs.get_state())
        _ops.shuffle(skipped, n, None)


def test_what_else_a_generator_holds_is_kept() -> None:
    theirs, ours = (torch.Generator().manual_seed(4) for _ in range(2))
    for each in (theirs, ours):
        torch.randn((), generator=each)  # which leaves the second of two numbers for later
    torch.randperm(NATIVE, generator=theirs)
    shuffle.skip(NATIVE, ours)
    assert torch.equal(torch.randn(40, generator=theirs), torch.randn(40, generator=ours))


def test_it_is_what_torch_does() -> None:
    assert shuffle._as_torch_does()
    assert isinstance(shuffle.shuffled(NATIVE, generator(0)), Shuffled)
    assert not isinstance(shuffle.shuffled(NATIVE - 1, generator(0)), Shuffled)


def test_where_it_is_not_torch_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = torch.randperm(NATIVE, generator=generator(0))
    monkeypatch.setattr(shuffle, "_as_torch_does", lambda: False)
    mine, theirs = generator(0), generator(0)
    order = shuffle.shuffled(NATIVE, mine)
    assert isinstance(order, Tensor)
    assert torch.equal(order, expected)
    shuffle.skip(NATIVE, mine)
    torch.randperm(NATIVE, generator=theirs)
    torch.randperm(NATIVE, generator=theirs)
    assert torch.equal(mine.get_state(), theirs.get_state())


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 7, 64, 1000, 5000, 30_000])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_steps_are_those_on_the_drawn_rows(
    dtype: torch.dtype, weighted: bool, size: int, threads: int
) -> None:
    """Whoever draws and gathers them, and wherever the memory of a batch lies."""
    problem = linear(ROWS, COLUMNS, 1, dtype, weighted=weighted)
    other = twin(problem)
    mine, theirs = (optimizer("SGD", p.parameters) for p in (problem, other))
    # Without the rest, too, as drop_last leaves it out.
    for count in (ROWS, ROWS // size * size or ROWS):
        order = Shuffled(generator(10).get_state(), ROWS, count)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            ran = StepwiseRunner(problem, mine).run(1, order=order, batch_size=size)
        finally:
            torch.set_num_threads(before)
        laid_out = other._replace(
            x=other.x[order.tensor()],
            y=other.y[order.tensor()],
            weight=None if other.weight is None else other.weight[order.tensor()],
        )
        again = StepwiseRunner(laid_out, theirs).run(1, batch_size=size)
        assert ran.step_losses is not None
        assert again.step_losses is not None
        assert torch.equal(ran.step_losses, again.step_losses)
        assert torch.equal(ran.losses, again.losses)
        assert same(everything(problem, mine), everything(other, theirs))


def test_a_shuffle_of_rows_that_are_not_there() -> None:
    problem = linear(40)
    opt = optimizer("SGD", problem.parameters)
    runner = StepwiseRunner(problem, opt)
    before = everything(problem, opt)
    state = generator(0).get_state()
    for order, message in (
        (Shuffled(state, 41, 41), r"^order: expected rows below 40, got 40$"),
        (Shuffled(state, 40, 41), r"^rows: expected 0 to 40, got 41$"),
        (Shuffled(state[1:], 40, 40), r"^state: expected what get_state\(\)"),
        (Shuffled(torch.zeros_like(state), 40, 40), r"^state: expected what get_state\(\)"),
    ):
        with pytest.raises(ValueError, match=message):
            runner.run(1, order=order, batch_size=2)
    assert same(before, everything(problem, opt))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(9)


LOADERS: dict[str, Any] = {
    "shuffled": lambda d: DataLoader(d, 64, shuffle=True),
    "by a generator": lambda d: DataLoader(d, 64, shuffle=True, generator=seeded()),
    "without the last": lambda d: DataLoader(
        d, 64, shuffle=True, drop_last=True, generator=seeded()
    ),
    "fewer": lambda d: DataLoader(
        d, 64, sampler=RandomSampler(d, num_samples=300, generator=seeded())
    ),
    "more": lambda d: DataLoader(d, 64, sampler=RandomSampler(d, num_samples=len(d) + 10)),
    "twice": lambda d: DataLoader(
        d, 64, sampler=RandomSampler(d, num_samples=2 * len(d), generator=seeded())
    ),
    "in order": lambda d: DataLoader(d, 64),
    "in order without the last": lambda d: DataLoader(d, 64, drop_last=True),
}


@pytest.mark.parametrize("name", LOADERS)
def test_epochs_of_a_loader(name: str) -> None:
    """The rows of three epochs, and where they leave every generator."""
    n = NATIVE + 10
    x = torch.arange(float(n)).unsqueeze(1)
    dataset = TensorDataset(x, x)
    runs = []
    for ours in (True, False):
        torch.manual_seed(2)
        loader = LOADERS[name](dataset)
        epochs = []
        batches = Batches(rows_of((x, x)), loader)
        for _ in range(3):
            if ours:
                order = batches.order()
                epochs.append(torch.arange(n) if order is None else rows_in(order))
            else:
                epochs.append(torch.cat([batch[:, 0] for batch, _ in loader]).long())
        own = (loader.generator, getattr(loader.sampler, "generator", None))
        states = [torch.get_rng_state(), *(g.get_state() for g in own if g is not None)]
        runs.append([*epochs, *states])
    for mine, theirs in zip(*runs, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.usefixtures("device")
def test_generators_are_put_back_when_an_epoch_is_cut_short(stepwise: Any) -> None:
    """By an epoch that raises: as if it had not begun, whoever drew its order."""
    x = torch.randn(ROWS, COLUMNS)
    y = torch.randn(ROWS, 1)
    model = nn.Linear(COLUMNS, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    drawing = seeded()
    seen: list[list[Tensor]] = []

    def look(*_: object) -> None:
        values = [*model.parameters(), drawing.get_state(), torch.get_rng_state()]
        seen.append([value.detach().clone() for value in values])

    run = stepwise.run

    def fails_in_the_third(self: Any, *args: Any, **options: Any) -> Any:
        ran = run(self, *args, **options)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return ran

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepwise, "run", fails_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            gdcore.fit(
                model,
                nn.MSELoss(),
                opt,
                (x, y),
                epochs=5,
                batch_size=64,
                shuffle=True,
                generator=drawing,
                callbacks=look,
            )
    look()
    assert len(seen) == 3
    assert all(map(torch.equal, seen[1], seen[2]))
    assert not torch.equal(seen[0][-2], seen[1][-2])


def fitted(method: str, **options: Any) -> list[Tensor]:
    torch.manual_seed(6)
    n = NATIVE + 100
    x, y = torch.randn(n, 3), torch.randn(n, 1)
    model = nn.Linear(3, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    if "scheduler_interval" in options:
        options["scheduler"] = torch.optim.lr_scheduler.LambdaLR(opt, lambda _: 1.0)
    drawing = seeded()
    if method == "loop":
        for _ in range(2):
            dataset = TensorDataset(x, y)
            with drawn_on_cpu():
                for a, b in DataLoader(dataset, 512, shuffle=True, generator=drawing):
                    opt.zero_grad()
                    nn.functional.mse_loss(model(a), b).backward()
                    opt.step()
    else:
        gdcore.fit(
            model,
            nn.MSELoss(),
            opt,
            (x, y),
            epochs=2,
            batch_size=512,
            shuffle=True,
            generator=drawing,
            method=method,
            **options,
        )
    return [*(p.detach() for p in model.parameters()), drawing.get_state(), torch.get_rng_state()]


@pytest.mark.usefixtures("device")
def test_other_ways_through_the_same_rows() -> None:
    """Eagerly, as a loop over the loader; and natively batch by batch, for a scheduler."""
    for mine, theirs in zip(fitted("eager"), fitted("loop"), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    step_by_step = fitted("stepwise", scheduler_interval="step")
    assert all(map(torch.equal, fitted("stepwise"), step_by_step))
