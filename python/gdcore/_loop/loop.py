"""The loop over epochs: in pieces that end where something is to happen between two of them."""

import math
import time
import warnings

import torch

from .._native.interrupts import Interrupts
from .._native.problem import StopRule
from ..stopping import RuleState
from .events import Event
from .history import DivergenceError, History
from .passes import Epochs
from .progress import Progress
from .recorder import Recorder

_SHORT = 20_000_000
"""Multiplications that surely end within the time in which Ctrl-C must be answered."""


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """The learning rate of every group; NaN for an optimizer that has none."""
    return [float(group.get("lr", math.nan)) for group in optimizer.param_groups]


class Loop:
    """Runs epochs, takes note of them, and lets events happen after those that they are due at."""

    def __init__(
        self,
        epochs: Epochs,
        recorder: Recorder,
        optimizer: torch.optim.Optimizer,
        events: list[Event],
        rule: StopRule | None,
        *,
        steps_are_python: bool,
        progress: Progress | None = None,
    ) -> None:
        self._epochs, self._recorder, self._optimizer = epochs, recorder, optimizer
        self._events, self._progress = events, progress
        in_batches = epochs.at_most is not None
        self._rule = None if in_batches else rule
        self._own_rule = RuleState(rule) if in_batches and rule is not None else None
        self._steps_are_python = steps_are_python
        self._begin = 0.0

    def use(self, epochs: Epochs, *, steps_are_python: bool) -> None:
        """Run the epochs that are left in another way."""
        self._epochs, self._steps_are_python = epochs, steps_are_python

    def run(self, wanted: int) -> History:
        """Until the epochs are done, or an event, a rule, an error or Ctrl-C ends them."""
        self._begin = time.perf_counter()
        try:
            with Interrupts() as interrupts:
                try:
                    self._run(wanted, interrupts)
                finally:
                    interrupts.hold()
                    self._epochs.show()
                    interrupts.release()
        except DivergenceError:
            raise
        except BaseException as error:
            error.history = self._history()  # type: ignore[attr-defined]
            raise
        finally:
            if self._progress is not None:
                self._progress.close(self._recorder.last_loss)
        return self._history()

    def _history(self) -> History:
        self._recorder.seconds = time.perf_counter() - self._begin
        return self._recorder.history()

    def _run(self, wanted: int, interrupts: Interrupts) -> None:
        recorder = self._recorder
        if wanted == 0:
            if self._epochs.at_most is None:
                self._epochs.run(0, 0, None)  # checks the data
            return
        self._warn_of_rate()
        going = True
        while going and recorder.epochs < wanted:
            count, record_every = self._next(recorder.epochs, wanted)
            before = rates(self._optimizer)
            if self._steps_are_python or count * self._epochs.work < _SHORT:
                interrupts.hold()
            ran = self._epochs.run(count, record_every, self._rule)
            recorder.add(ran, before)
            if ran.outcome == "finished" and self._epochs.at_most is not None:
                self._record_batches()
            if ran.raised is not None:
                raise ran.raised
            if ran.outcome == "diverged":
                rate = max(before, key=abs)
                limit = self._epochs.largest_stable_lr()
                raise DivergenceError(recorder.epochs - 1, rate, limit, self._history())
            going = ran.outcome != "stopped"
            if ran.outcome == "finished":
                going = self._between(interrupts)
            interrupts.release()
        recorder.stopped = not going

    def _next(self, done: int, wanted: int) -> tuple[int, int]:
        """How many epochs to run, and the distance of records among them."""
        count = wanted - done
        for event in self._events:
            count = min(count, -done % event.every + 1)
        if self._progress is not None:
            count = min(count, self._progress.chunk)
        if self._epochs.at_most is not None:
            return min(count, self._epochs.at_most), 0
        every = self._recorder.record_every
        if every is None:
            return count, 0
        until_record = -done % every
        return (count, every) if until_record == 0 else (min(count, until_record), 0)

    def _record_batches(self) -> None:
        every = self._recorder.record_every
        if every is not None and (self._recorder.epochs - 1) % every == 0:
            self._epochs.show()
            self._recorder.add_parameters()

    def _between(self, interrupts: Interrupts) -> bool:
        """What is due after an epoch; whether to go on."""
        epoch = self._recorder.epochs - 1
        due = [event for event in self._events if epoch % event.every == 0]
        if not due and self._own_rule is None and self._progress is None:
            return True
        loss = self._recorder.last_loss
        assert loss is not None
        stop = self._own_rule is not None and self._own_rule.holds(loss)
        if due:
            interrupts.hold()
            self._epochs.show()
            for event in due:
                if not event.whole:
                    interrupts.release()
                stop = event.action(epoch, loss) or stop
        if self._progress is not None:
            self._progress.update(epoch + 1, loss)
        return not stop

    def _warn_of_rate(self) -> None:
        """Before the first step, where the largest rate that converges is known."""
        rate = max(rates(self._optimizer), key=abs)
        limit = self._epochs.limit(rate)
        if limit is not None and rate > limit:
            warnings.warn(
                f"optimizer: lr={rate:g} is above {limit:g}, the largest with which gradient "
                "descent converges on these data; the loss will grow",
                RuntimeWarning,
                stacklevel=6,
            )
