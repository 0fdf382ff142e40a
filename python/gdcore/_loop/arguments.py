"""The arguments of a fit that have names: what each may be."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch.optim.lr_scheduler import LRScheduler

from .. import _checks
from ..stopping import Stop
from .choice import METHODS
from .validation import chosen_metrics

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


def _count(name: str, value: Any, least: int) -> int:
    count = _checks.integer(name, value)
    if count < least:
        raise ValueError(f"{name}: expected at least {least}, got {count}")
    if count > _MOST:
        raise ValueError(f"{name}: expected at most {_MOST}, got {count}")
    return count


_COUNTS = (("epochs", 0), ("validate_every", 1), ("callback_every", 1))
_OPTIONAL_COUNTS = (("batch_size", 1), ("log_every", 1), ("record_every", 1))


def checked(settings: Settings, optimizer: torch.optim.Optimizer) -> Settings:
    """The settings, their counts as ints, their metrics by name, their callbacks in a list."""
    mended: dict[str, Any] = {}
    for name, least in _COUNTS + _OPTIONAL_COUNTS:
        value = getattr(settings, name)
        if type(value) is int and least <= value <= _MOST:  # nearly always, and soon seen
            continue
        if value is not None or (name, least) in _COUNTS:
            mended[name] = _count(name, value, least)
    mended["metrics"] = chosen_metrics(settings.metrics)
    mended["callbacks"] = _callbacks(settings.callbacks)
    settings = settings._replace(**mended)
    _check(settings, optimizer)
    return settings


def _check(settings: Settings, optimizer: torch.optim.Optimizer) -> None:
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
    if settings.scheduler_interval not in ("epoch", "step"):
        got = repr(settings.scheduler_interval)
        raise ValueError(f"scheduler_interval: expected 'epoch' or 'step', got {got}")
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
    plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    if plateau and settings.scheduler_interval == "step":
        raise ValueError("scheduler_interval: expected 'epoch' with ReduceLROnPlateau, got 'step'")


def check_watched(settings: Settings) -> None:
    stop = settings.stop
    if stop is None or stop.watch is None:
        return
    if settings.validation is None:
        raise ValueError(f"stop: expected validation to watch {stop.watch!r} of, got None")
    known = ["loss", *settings.metrics]
    if stop.watch not in known:
        raise ValueError(f"stop: expected to watch one of {', '.join(known)}, got {stop.watch!r}")


def _callbacks(given: Any) -> list[Callable[..., object]]:
    if not callable(given) and not isinstance(given, Iterable):
        raise TypeError(f"callbacks: expected functions, got {type(given).__name__}")
    callbacks = [given] if callable(given) else list(given)
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks: expected functions, got {type(callback).__name__}")
    return callbacks
