"""How a runner goes through the rows of an epoch: all at once, in batches, or as they are read."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from .._native.problem import StopRule
from .._native.runners import Ran, Runner
from .._native.shuffle import Order, rows_in
from .batches import Batches, Reader, groups
from .cost import Costs
from .eager_runner import EagerRunner
from .rows import Rows
from .snapshot import Snapshot

MakeRunner = Callable[[Rows, int | None], Runner]


class Epochs(Protocol):
    """What runs a number of epochs."""

    work: int
    """About how many multiplications an epoch takes."""

    @property
    def at_most(self) -> int | None:
        """How many can be run at once, if there is a limit."""

    def run(self, epochs: int, record_every: int, stop: StopRule | None) -> Ran: ...

    def show(self) -> None: ...

    def limit(self, rate: float) -> float | None:
        """The largest rate that converges, unless ``rate`` is surely below, or it takes too long
        to know.
        """

    def largest_stable_lr(self) -> float | None:
        """The largest rate that converges, where it can be known."""


_QUICK = 2e-3
_SHARE = 0.1
"""Finding the largest stable rate may take so many seconds, or so much of the fit."""


def _work(rows: Rows) -> int:
    elements = sum(t.numel() for t in (rows.x if isinstance(rows.x, tuple) else (rows.x,)))
    return elements * max(rows.y.numel() // rows.number, 1) + 100


class FullBatch:
    """All rows in every step."""

    at_most: int | None = None

    def __init__(self, rows: Rows, make: MakeRunner, costs: Costs | None) -> None:
        self._runner = make(rows, None)
        self._costs = costs
        self.work = _work(rows)

    def run(self, epochs: int, record_every: int, stop: StopRule | None) -> Ran:
        return self._runner.run(epochs, record_every=record_every, stop=stop)

    def show(self) -> None:
        self._runner.show()

    def limit(self, rate: float) -> float | None:
        runner, costs = self._runner, self._costs
        if costs is None or costs.compressed is None:
            return None
        allowed = max(_QUICK, _SHARE * costs.total(runner.method))
        if runner.method != "compressed" and costs.compressed.prepare > allowed:
            return None
        return None if runner.surely_stable(rate) else runner.largest_stable_lr

    def largest_stable_lr(self) -> float | None:
        return self._runner.largest_stable_lr


class InBatches:
    """One epoch at a time, a step for each batch. An epoch that Ctrl-C ends has not been."""

    at_most: int | None = 1

    def __init__(
        self,
        data: Batches | Reader,
        make: MakeRunner,
        tensors: list[Tensor],
        optimizer: torch.optim.Optimizer,
        scheduler: Any = None,
    ) -> None:
        """With a scheduler, that is stepped after every batch."""
        self._data, self._make = data, make
        self._tensors, self._optimizer, self._scheduler = tensors, optimizer, scheduler
        in_memory = isinstance(data, Batches)
        self._runner: Runner | None = None
        if isinstance(data, Batches):
            self._runner = make(data.rows, data.batch_size)
        self.work = _work(data.rows) if in_memory else 1 << 62  # type: ignore[union-attr]
        given = {data.loader.generator, getattr(data.loader.sampler, "generator", None)}
        self._generators = [g for g in given if isinstance(g, torch.Generator)]

    def show(self) -> None:
        if self._runner is not None:
            self._runner.show()

    def limit(self, rate: float) -> float | None:
        return None

    def largest_stable_lr(self) -> float | None:
        return None

    def run(self, epochs: int, record_every: int, stop: StopRule | None) -> Ran:
        """An epoch. The loop records and looks at rules itself, when it is over."""
        before = Snapshot(self._tensors, self._optimizer, self._scheduler, self._generators)
        parts: list[tuple[int, Ran]] = []
        try:
            self._run(parts)
        except BaseException:
            before.restore()
            raise
        ran = _whole(parts)
        if ran.outcome == "interrupted":
            before.restore()
        return ran

    def _run(self, parts: list[tuple[int, Ran]]) -> None:
        if isinstance(self._data, Batches):
            assert self._runner is not None
            data = self._data
            self._go_through(self._runner, data.rows, data.order(), data.batch_size, parts)
            return
        batches = self._data.batches()
        for rows in batches:
            # A model that is trained eagerly may draw random numbers as the loader does, or be what
            # the loader's data depend on: nothing is read ahead of it.
            if isinstance(self._runner, EagerRunner) and parts:
                self._runner = self._runner.over(rows)
            else:
                self._runner = self._make(rows, rows.number)
            if not self._go_through(self._runner, rows, None, rows.number, parts):
                return
            if not isinstance(self._runner, EagerRunner):
                break
        for rows, batch_size in groups(batches):
            self._runner = self._make(rows, batch_size)
            if not self._go_through(self._runner, rows, None, batch_size, parts):
                return
        if not parts:
            raise ValueError("data: expected the loader to give at least one batch, got none")

    def _go_through(
        self,
        runner: Runner,
        rows: Rows,
        order: Order | None,
        batch_size: int,
        parts: list[tuple[int, Ran]],
    ) -> bool:
        """Whether all was run."""
        if self._scheduler is None:
            number = rows.number if order is None else len(order)
            parts.append((number, runner.run(1, order=order, batch_size=batch_size)))
            return parts[-1][1].outcome == "finished"
        batches: Iterable[Tensor | None] = (None,)
        if order is not None or batch_size < rows.number:
            whole = torch.arange(rows.number, device="cpu") if order is None else rows_in(order)
            batches = whole.split(batch_size)
        for batch in batches:
            number = rows.number if batch is None else len(batch)
            parts.append((number, runner.run(1, order=batch, batch_size=number)))
            if parts[-1][1].outcome != "finished":
                return False
            self._scheduler.step()
        return True


def _whole(parts: list[tuple[int, Ran]]) -> Ran:
    """The runs of an epoch's parts as one."""
    last = parts[-1][1]
    if len(parts) == 1:
        return last
    steps = [ran.losses if ran.step_losses is None else ran.step_losses for _, ran in parts]
    losses = last.losses
    if last.outcome != "interrupted":
        rows = torch.tensor([float(count) for count, _ in parts], dtype=torch.float64, device="cpu")
        means = torch.cat([ran.losses for _, ran in parts]).to(torch.float64)
        losses = ((rows * means).sum(0, keepdim=True) / rows.sum()).to(last.losses.dtype)
    return Ran(losses, torch.cat(steps), None, last.epochs, last.outcome, last.raised)
