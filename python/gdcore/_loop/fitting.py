"""A fit from its arguments: checked, planned, and run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from ..stopping import Stop
from . import events as _events
from .batches import Data, Reader, Rows, data_of, rows_of
from .choice import METHODS, Chooser, Chosen
from .eager import Loss, trained_by
from .events import Event
from .history import History
from .history_source import source_of
from .loop import Loop
from .passes import Epochs, FullBatch, InBatches
from .progress import Progress, import_tqdm
from .recorder import Recorder
from .validation import Validation, chosen_metrics

_MOST = 2**40
"""Epochs beyond which not even their losses would fit in memory."""


class Settings(NamedTuple):
    """The arguments of `gdcore.fit` that have names, with its defaults."""

    epochs: Any
    batch_size: Any = None
    shuffle: Any = False
    generator: Any = None
    weight: Any = None
    validation: Any = None
    validate_every: Any = 1
    metrics: Any = ()
    max_grad_norm: Any = None
    scheduler: Any = None
    scheduler_interval: Any = "epoch"
    callbacks: Any = ()
    callback_every: Any = 1
    progress: Any = False
    log_every: Any = None
    record_every: Any = None
    record_steps: Any = False
    stop: Any = None
    method: Any = "auto"
    strict: Any = False


def check_objects(model: Any, loss_fn: Any, optimizer: Any) -> None:
    """What can be no model, loss or optimizer, whichever way it is run."""
    for name, value, what in (
        ("model", model, "nn.Module or a function of x"),
        ("loss_fn", loss_fn, "nn.MSELoss or another function of the prediction and y"),
    ):
        if isinstance(value, type):
            raise TypeError(f"{name}: expected {what}, got the class {value.__name__} itself")
        if not callable(value):
            raise TypeError(f"{name}: expected {what}, got {type(value).__name__}")
    if not isinstance(optimizer, torch.optim.Optimizer):
        got = f"the class {optimizer.__name__} itself" if isinstance(optimizer, type) else None
        got = got or type(optimizer).__name__
        raise TypeError(f"optimizer: expected a torch.optim.Optimizer, got {got}")


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    if value > _MOST:
        raise ValueError(f"{name}: expected at most {_MOST}, got {value}")


def check_settings(settings: Settings, optimizer: torch.optim.Optimizer) -> None:
    _check_count("epochs", settings.epochs, 0)
    for name in ("batch_size", "log_every", "record_every"):
        if getattr(settings, name) is not None:
            _check_count(name, getattr(settings, name), 1)
    for name in ("validate_every", "callback_every"):
        _check_count(name, getattr(settings, name), 1)
    for name in ("shuffle", "progress", "record_steps", "strict"):
        value = getattr(settings, name)
        if not isinstance(value, bool):
            raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
    if settings.method not in METHODS:
        known = ", ".join(METHODS)
        raise ValueError(f"method: expected one of {known}, got {settings.method!r}")
    if settings.generator is not None and not isinstance(settings.generator, torch.Generator):
        kind = type(settings.generator).__name__
        raise TypeError(f"generator: expected a torch.Generator, got {kind}")
    norm = settings.max_grad_norm
    if norm is not None:
        if isinstance(norm, bool) or not isinstance(norm, (int, float)):
            raise TypeError(f"max_grad_norm: expected a number, got {type(norm).__name__}")
        if not norm > 0:
            raise ValueError(f"max_grad_norm: expected more than 0, got {norm}")
    if settings.scheduler is not None:
        _check_scheduler(settings, optimizer)
    stop = settings.stop
    if stop is not None and not isinstance(stop, Stop):
        raise TypeError(f"stop: expected what gdcore.stop_when returns, got {type(stop).__name__}")
    if settings.validation is None and settings.metrics:
        raise ValueError("metrics: expected with validation, got them without")


def _check_scheduler(settings: Settings, optimizer: torch.optim.Optimizer) -> None:
    scheduler = settings.scheduler
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(
            f"scheduler: expected one of torch.optim.lr_scheduler, got {type(scheduler).__name__}"
        )
    if scheduler.optimizer is not optimizer:
        raise ValueError("scheduler: expected one over this optimizer, got another's")
    if settings.scheduler_interval not in ("epoch", "step"):
        got = repr(settings.scheduler_interval)
        raise ValueError(f"scheduler_interval: expected 'epoch' or 'step', got {got}")
    plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    if plateau and settings.scheduler_interval == "step":
        raise ValueError("scheduler_interval: expected 'epoch' with ReduceLROnPlateau, got 'step'")


def _check_watched(settings: Settings) -> None:
    stop = settings.stop
    if stop is None or stop.watch is None:
        return
    if settings.validation is None:
        raise ValueError(f"stop: expected validation to watch {stop.watch!r} of, got None")
    known = ["loss", *chosen_metrics(settings.metrics)]
    if stop.watch not in known:
        raise ValueError(f"stop: expected to watch one of {', '.join(known)}, got {stop.watch!r}")


def _callbacks(given: Any) -> list[Callable[..., object]]:
    callbacks = [given] if callable(given) else list(given)
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks: expected functions, got {type(callback).__name__}")
    return callbacks


def choose(
    model: Any, loss_fn: Any, optimizer: torch.optim.Optimizer, data: Any, settings: Settings
) -> tuple[Data, Chosen]:
    """The data in their form, and the way that is taken with them."""
    s = settings
    rows = data_of(data, s.batch_size, s.shuffle, s.generator, s.weight)
    rule = None if s.stop is None else s.stop.rule
    if rule is not None and rule.gradient_norm_below is not None and not isinstance(rows, Rows):
        raise ValueError("gradient_norm_below: expected the full batch, got minibatches")
    chooser = Chooser(
        model,
        loss_fn,
        optimizer,
        method=s.method,
        strict=s.strict,
        max_grad_norm=s.max_grad_norm,
        stop=rule,
    )
    return rows, chooser.choose(rows, s.epochs)


def fit(
    model: Any, loss_fn: Any, optimizer: torch.optim.Optimizer, data: Any, settings: Settings
) -> History:
    check_settings(settings, optimizer)
    _check_watched(settings)
    s = settings
    rows, chosen = choose(model, loss_fn, optimizer, data, s)
    full_batch = isinstance(rows, Rows)
    source = None
    if s.record_every is not None:  # who keeps parameters may want to draw them
        source = source_of(model, loss_fn, rows, trained_by(optimizer))
    recorder = Recorder(
        chosen.taken or (lambda: chosen.plan),
        chosen.parameters,
        record_every=s.record_every,
        validate_every=None if s.validation is None else s.validate_every,
        steps=s.record_steps,
        dtype=_dtype(rows),
        source=source,
    )
    tensors = [] if full_batch and s.validation is None else _tensors(model, optimizer)
    validation = None
    if s.validation is not None:
        held_out = rows_of(s.validation, name="validation")
        metrics = chosen_metrics(s.metrics)
        validation = Validation(model, Loss(loss_fn), held_out, metrics, s.stop, tensors)
    events = _events_of(model, s, chosen, recorder, validation, not full_batch)
    rule = None
    if s.stop is not None:
        # What watches validation is left to the validation; a norm is the runner's to look at.
        rule = s.stop.rule
        if s.stop.watch is not None:
            rule = rule._replace(loss_below=None, no_improvement_for=None)
        rule = rule if any(condition is not None for condition in rule) else None
    tqdm = import_tqdm() if s.progress else None
    try:
        epochs = _epochs(rows, chosen, optimizer, tensors, s)
    except BaseException as error:  # Ctrl-C while rows are compressed, say
        error.history = recorder.history()  # type: ignore[attr-defined]
        raise
    loop = Loop(
        epochs,
        recorder,
        optimizer,
        events,
        rule,
        steps_are_python=chosen.steps_are_python,
        progress=Progress(tqdm, s.epochs) if tqdm is not None else None,
    )
    history = loop.run(s.epochs)
    if validation is not None:
        validation.restore_best()
    return history


def _dtype(data: Data) -> torch.dtype:
    y = None if isinstance(data, Reader) else data.y if isinstance(data, Rows) else data.rows.y
    floats = y is not None and y.dtype.is_floating_point
    return y.dtype if y is not None and floats else torch.get_default_dtype()


def _tensors(model: Any, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What training a model changes."""
    buffers = model.buffers() if isinstance(model, torch.nn.Module) else ()
    return [*trained_by(optimizer), *buffers]


def _epochs(
    data: Data,
    chosen: Chosen,
    optimizer: torch.optim.Optimizer,
    tensors: list[Tensor],
    settings: Settings,
) -> Epochs:
    if isinstance(data, Rows):
        return FullBatch(data, chosen.runner, chosen.plan.costs)
    per_step = settings.scheduler if settings.scheduler_interval == "step" else None
    return InBatches(data, chosen.runner, tensors, optimizer, per_step)


def _events_of(
    model: Any,
    settings: Settings,
    chosen: Chosen,
    recorder: Recorder,
    validation: Validation | None,
    in_batches: bool,
) -> list[Event]:
    """In the order in which they happen."""
    s = settings
    events = []
    if validation is not None:
        events.append(_events.validating(validation, s.validate_every, recorder))
    if s.scheduler is not None and not (s.scheduler_interval == "step" and in_batches):
        watched = validation if s.stop is not None and s.stop.watch is not None else None
        events.append(_events.scheduling(s.scheduler, watched, s.validate_every))
    if s.log_every is not None:
        events.append(_events.logging(chosen.parameters, s.epochs, s.log_every))
    callbacks = _callbacks(s.callbacks)
    if callbacks:
        events.append(_events.calling(callbacks, model, s.callback_every))
    return events
