"""Epochs of plain PyTorch, as the native loops run theirs."""

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from .._native import interrupts as _interrupts
from .._native.problem import StopRule
from .._native.runners import Ran
from .._native.shuffle import Order, rows_in
from ..stopping import RuleState
from .eager import EagerStep
from .names import named_parameters
from .rows import Rows


class _Steps(NamedTuple):
    losses: list[float]
    records: list[Tensor]
    outcome: str


class EagerRunner:
    """Runs `EagerStep`; stops between two steps at Ctrl-C, at a rule and at infinity."""

    method = "eager"

    def __init__(self, step: EagerStep, rows: Rows) -> None:
        self._step = step
        self._rows = rows
        self._rule: RuleState | None = None
        self._before: list[Tensor] | None = None
        dtype = rows.y.dtype
        self._dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()

    def over(self, rows: Rows) -> "EagerRunner":
        """The same step, over other rows."""
        return EagerRunner(self._step, rows)

    def show(self) -> None:
        """Nothing to do: the parameters hold the state."""

    @property
    def largest_stable_lr(self) -> float | None:
        return None

    def surely_stable(self, rate: float) -> bool:
        return True

    def run(
        self,
        epochs: int,
        *,
        record_every: int = 0,
        order: Order | None = None,
        batch_size: int | None = None,
        stop: StopRule | None = None,
    ) -> Ran:
        if batch_size is not None:
            number = self._rows.number
            if order is None and batch_size >= number:  # with as many targets as they may have
                return self._minibatches([self._rows], [number])
            rows = torch.arange(number, device="cpu") if order is None else rows_in(order)
            orders = rows.split(batch_size)
            picked = (_picked(self._rows, part) for part in orders)
            return self._minibatches(picked, [len(part) for part in orders])
        if stop is not None and self._rule is None:
            self._rule = RuleState(stop)
        steps = self._run(itertools.repeat(self._rows, epochs), record_every)
        losses = torch.tensor(steps.losses, dtype=self._dtype, device="cpu")
        done = len(losses) - (steps.outcome in ("diverged", "stopped"))
        records = torch.stack(steps.records) if steps.records else None
        return Ran(losses, None, records, done, steps.outcome, None)

    def _minibatches(self, batches: Iterable[Rows], counts: list[int]) -> Ran:
        steps = self._run(batches, 0)
        losses = steps.losses
        taken = counts[: len(losses)]
        total = math.fsum(n * loss for n, loss in zip(taken, losses, strict=True))
        mean = [] if steps.outcome == "interrupted" else [total / sum(taken)]
        return Ran(
            torch.tensor(mean, dtype=self._dtype, device="cpu"),
            torch.tensor(losses, dtype=self._dtype, device="cpu"),
            None,
            int(steps.outcome == "finished"),
            steps.outcome,
            None,
        )

    def _run(self, batches: Iterable[Rows], record_every: int) -> _Steps:
        losses: list[float] = []
        records: list[Tensor] = []
        with self._step.gradients_aside() as trained:
            for index, rows in enumerate(batches):
                if _interrupts.waiting():
                    return _Steps(losses, records, "interrupted")
                outcome = self._one(rows, trained, losses)
                if outcome is not None:
                    return _Steps(losses, records, outcome)
                if record_every and index % record_every == 0:
                    named = named_parameters(self._step.model, self._step.optimizer)
                    records.append(torch.cat([p.detach().reshape(-1) for p in named.values()]))
        return _Steps(losses, records, "finished")

    def _one(self, rows: Rows, trained: list[Tensor], losses: list[float]) -> str | None:
        """One step, or the reason why it was not made (or was unmade)."""
        step = self._step
        if step.takes_closure:
            self._before = [p.detach().clone() for p in trained]
            loss = step.step_by_closure(rows, trained)
        else:
            loss = step.evaluate(rows, trained)
        self._dtype = loss.dtype
        losses.append(loss.item())
        norm = None
        if not math.isfinite(losses[-1]):
            outcome = "diverged"
        else:
            if self._rule is not None and self._rule.rule.gradient_norm_below is not None:
                norm = step.norm(trained)
            if self._rule is None or not self._rule.holds(
                losses[-1], None if norm is None else norm.item()
            ):
                if not step.takes_closure:
                    self._before = [p.detach().clone() for p in trained]
                    step.update(rows, trained, norm)
                return None
            outcome = "stopped"
        updated = step.takes_closure or not all(bool(p.isfinite().all()) for p in trained)
        if updated and self._before is not None:
            with torch.no_grad():
                for parameter, values in zip(trained, self._before, strict=True):
                    parameter.copy_(values)
        return outcome


def _picked(rows: Rows, order: Tensor) -> Rows:
    x, y, weight = rows
    picked = tuple(t[order] for t in x) if isinstance(x, tuple) else x[order]
    return Rows(picked, y[order], None if weight is None else weight[order])
