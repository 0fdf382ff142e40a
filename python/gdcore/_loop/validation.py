"""Judging a model by data that it is not trained on."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .. import metrics as metric_functions
from .._recognition.models import recognise_model
from .._seen import Look
from ..metrics import Metric
from ..stopping import RuleState, Stop
from .eager import Loss, predict
from .rows import Inputs, Rows


def chosen_metrics(given: Any) -> dict[str, Metric]:
    """The functions of a sequence of names and functions ``f(prediction, target)``, by name."""
    if isinstance(given, str) or callable(given):
        given = (given,)
    if not isinstance(given, Iterable):
        raise TypeError(f"metrics: expected names or functions, got {type(given).__name__}")
    chosen: dict[str, Metric] = {}
    for each in given:
        if callable(each):
            name, metric = getattr(each, "__name__", type(each).__name__), each
        elif isinstance(each, str) and each in metric_functions.BY_NAME:
            name, metric = each, metric_functions.BY_NAME[each]
        else:
            known = ", ".join(metric_functions.BY_NAME)
            raise ValueError(f"metrics: expected {known} or functions, got {each!r}")
        if name in ("loss", *chosen):
            raise ValueError(
                f"metrics: expected names that differ, and none 'loss', got {name!r} again; "
                "set the function's __name__"
            )
        chosen[name] = metric
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
        kept: Callable[[], list[Tensor]],
    ) -> None:
        self._model, self._loss, self._rows, self._metrics = model, loss, rows, metrics
        self._watch = None if stop is None else stop.watch
        self._sign = -1.0 if self._watch == "r2" else 1.0
        self._state = None if stop is None or stop.watch is None else RuleState(stop.rule)
        self._kept = kept if stop is not None and stop.restore_best else None
        self._best: list[tuple[Tensor, Tensor]] | None = None
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
        first = before == math.inf and self._best is None
        if self._kept is not None and (first or value < before):
            self._best = [(tensor, tensor.detach().clone()) for tensor in self._kept()]
        return stop

    def check(self, trained_on: Rows | None, *, native: bool) -> None:
        """Before the first step: that the data suit the model, and the metrics give numbers.

        A model that may remember its calls is not called, only its data are compared with those
        that it is trained on.

        Raises:
            TypeError: x of another dtype than what the model is trained on, which it does not take.
            ValueError: whatever else does not fit, or a metric that fails or gives no number.
        """
        if self._rows.weight is not None and self._loss.reduction(self._rows) is None:
            raise ValueError(
                "validation: expected no weights with a loss that is not recognised, got some"
            )
        if native or _forgets(self._model):
            devices = [self._rows.y.device] if self._rows.y.is_cuda else []
            with (
                _evaluation(self._model),
                torch.no_grad(),
                torch.random.fork_rng(devices),
            ):
                self._try(trained_on, native=native)
        elif trained_on is not None and _dims(trained_on.x) == _dims(self._rows.x):
            self._compare(trained_on)

    def _try(self, trained_on: Rows | None, *, native: bool) -> None:
        x, y, _ = self._rows
        try:
            prediction = predict(self._model, x)
        except Exception as error:
            dtypes = trained_on is None or _dtypes(trained_on.x) == _dtypes(x)
            kind: type[Exception] = ValueError if dtypes else TypeError
            raise kind(
                f"validation: expected x as the model takes it, got {_described(x)}: {error}"
            ) from error
        if (native or self._loss.recognised) and y.shape != prediction.shape:
            raise ValueError(
                f"validation: expected y of the prediction's shape {tuple(prediction.shape)}, "
                f"got {tuple(y.shape)}"
            )
        try:
            self._loss(prediction, self._rows).item()
        except Exception as error:
            raise ValueError(
                f"validation: expected y as loss_fn takes it, got {_described(y)}: {error}"
            ) from error
        for name, metric in self._metrics.items():
            try:
                value = metric(prediction, y)
            except Exception as error:
                got = f"{type(error).__name__}: {error}"
                raise ValueError(f"metrics: expected {name} to give a number, got {got}") from error
            try:
                float(value)
            except (TypeError, ValueError, RuntimeError) as error:
                got = _described(value) if isinstance(value, Tensor) else type(value).__name__
                raise TypeError(f"metrics: expected {name} to give a number, got {got}") from error

    def _compare(self, trained_on: Rows) -> None:
        """Where the loss wants y in the shape of the prediction, the rows and dimensions of y."""
        y = self._rows.y
        rows, dims = self._rows.number, trained_on.y.dim()
        by_row = trained_on.y.shape[:1] == (trained_on.number,)
        if self._loss.recognised and (y.dim() != dims or (by_row and y.shape[0] != rows)):
            of = f", {rows} rows of them," if by_row else ""
            raise ValueError(
                f"validation: expected y of {dims} dimensions{of} as the data's, "
                f"got shape {tuple(y.shape)}"
            )

    def restore_best(self) -> None:
        if self._best is not None:
            with torch.no_grad():
                for tensor, values in self._best:
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


def _tensors(x: Inputs) -> tuple[Tensor, ...]:
    return x if isinstance(x, tuple) else (x,)


def _dims(x: Inputs) -> list[int]:
    return [each.dim() for each in _tensors(x)]


def _dtypes(x: Inputs) -> list[torch.dtype]:
    return [each.dtype for each in _tensors(x)]


def _described(x: Inputs) -> str:
    return " and ".join(f"shape {tuple(each.shape)} of {each.dtype}" for each in _tensors(x))


def _forgets(model: Any) -> bool:
    """Whether a module is known to be after a call in evaluation mode as it was before: its parts
    are torch's own, or it is known by its name.
    """
    with contextlib.suppress(TypeError, ValueError):
        recognise_model(model, Look())
        return True
    return isinstance(model, torch.nn.Module) and all(
        type(part).__module__.startswith("torch.nn.modules.")
        and "forward" not in part.__dict__
        and not (part._forward_hooks or part._forward_pre_hooks)
        for part in model.modules()
    )
