"""Judging a model by data that it is not trained on."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .. import metrics as metric_functions
from ..metrics import Metric
from ..stopping import RuleState, Stop
from .batches import Rows
from .eager import Loss, predict


def chosen_metrics(given: Any) -> dict[str, Metric]:
    """The functions of a sequence of names and functions ``f(prediction, target)``, by name."""
    if isinstance(given, str) or callable(given):
        given = (given,)
    chosen: dict[str, Metric] = {}
    for each in given:
        if callable(each):
            chosen[getattr(each, "__name__", type(each).__name__)] = each
        elif each in metric_functions.BY_NAME:
            chosen[each] = metric_functions.BY_NAME[each]
        else:
            known = ", ".join(metric_functions.BY_NAME)
            raise ValueError(f"metrics: expected {known} or functions, got {each!r}")
    return chosen


class Validation:
    """The loss and the metrics of validation data, the best of what is watched among them."""

    def __init__(
        self,
        model: Any,
        loss: Loss,
        rows: Rows,
        metrics: Mapping[str, Metric],
        stop: Stop | None,
        tensors: list[Tensor],
    ) -> None:
        self._model, self._loss, self._rows, self._metrics = model, loss, rows, metrics
        self._watch = None if stop is None else stop.watch
        self._sign = -1.0 if self._watch == "r2" else 1.0
        self._state = None if stop is None or stop.watch is None else RuleState(stop.rule)
        self._keep = tensors if stop is not None and stop.restore_best else []
        self._best: list[Tensor] | None = None
        self._last_epoch: int | None = None
        self.values: dict[str, float] = {}

    @property
    def watched(self) -> float | None:
        """What is watched, as it was last."""
        return None if self._watch is None else self.values[self._watch]

    def __call__(self, epoch: int) -> bool:
        """Look at the data; whether the rule says to stop."""
        with _evaluation(self._model), torch.no_grad():
            prediction = predict(self._model, self._rows.x)
            self.values = {"loss": self._loss(prediction, self._rows).item()}
            for name, metric in self._metrics.items():
                self.values[name] = float(metric(prediction, self._rows.y))
        if self._state is None or self._watch is None:
            return False
        value = self._sign * self.values[self._watch]
        before = self._state.best
        since = 1 if self._last_epoch is None else epoch - self._last_epoch
        self._last_epoch = epoch
        stop = self._state.holds(value, epochs=since)
        if self._keep and (value < before or (before == math.inf and self._best is None)):
            self._best = [tensor.detach().clone() for tensor in self._keep]
        return stop

    def restore_best(self) -> None:
        if self._best is not None:
            with torch.no_grad():
                for tensor, values in zip(self._keep, self._best, strict=True):
                    tensor.copy_(values)


@contextlib.contextmanager
def _evaluation(model: Any) -> Iterator[None]:
    """A module and its parts in evaluation mode, and then as each was."""
    if not isinstance(model, torch.nn.Module):
        yield
        return
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
