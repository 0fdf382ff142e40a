"""A fit from its arguments: checked, planned, and run."""

from collections.abc import Callable
from functools import partial
from itertools import filterfalse
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from . import events as _events
from .arguments import Settings, check_watched, checked
from .batches import Data, Reader, data_of, in_memory
from .changes import Held
from .choice import Chooser, Chosen
from .eager import Loss, trained_by
from .events import Event
from .history import History
from .history_source import Source, source_of
from .loop import Loop
from .passes import Epochs, FullBatch, InBatches
from .progress import Progress, import_tqdm
from .recorder import Recorder
from .rows import Rows, check_weight, rows_of
from .validation import Validation


def choose(
    model: Any, loss_fn: Any, optimizer: torch.optim.Optimizer, data: Any, settings: Settings
) -> tuple[Data, Chosen, Chooser]:
    """The data in their form, the way that is taken with them, and who chose it."""
    s = settings
    rows = data_of(data, s.batch_size, s.shuffle, s.generator, s.weight)
    known = in_memory(rows)
    if known is not None:
        check_weight(known.weight)
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
    )
    return rows, chooser.choose(rows, s.epochs), chooser


def fit(
    model: Any, loss_fn: Any, optimizer: torch.optim.Optimizer, data: Any, settings: Settings
) -> History:
    s = settings = checked(settings, optimizer)
    check_watched(s)
    try:
        rows, chosen, chooser = choose(model, loss_fn, optimizer, data, s)
    except KeyboardInterrupt as error:  # while a model is recognised
        none = torch.empty(0, dtype=torch.get_default_dtype(), device="cpu")
        error.history = History(none, {}, s.record_every, 0.0)  # type: ignore[attr-defined]
        raise
    full_batch = isinstance(rows, Rows)

    def source() -> Source | None:  # who keeps parameters may want to draw them
        keeps = s.record_every is not None
        return source_of(model, loss_fn, rows, trained_by(optimizer)) if keeps else None

    recorder = Recorder(
        chosen.current_plan,
        chosen.parameters,
        record_every=s.record_every,
        validate_every=None if s.validation is None else s.validate_every,
        steps=s.record_steps,
        dtype=_dtype(rows),
        source=source(),
    )
    validation = None
    if s.validation is not None:
        held_out = rows_of(s.validation, name="validation")
        check_weight(held_out.weight, name="validation")
        kept = partial(_trainable if s.callbacks else _tensors, model, optimizer)
        validation = Validation(model, Loss(loss_fn), held_out, s.metrics, s.stop, kept)
    held = Held(model, optimizer, chosen) if s.callbacks else None

    def look_again(epoch: int) -> None:
        """Choose anew for what is left, where a callback changed what the choice counts on."""
        nonlocal held
        left = s.epochs - epoch - 1
        if left == 0 or held is None or not held.changed():
            return
        chosen = chooser.choose(rows, left)
        held = Held(model, optimizer, chosen)
        recorder.use(chosen.current_plan, chosen.parameters, source())
        epochs = _epochs(rows, chosen, model, optimizer, s)
        loop.use(epochs, steps_are_python=chosen.steps_are_python)

    events = _events_of(model, s, recorder, validation, look_again, not full_batch)
    rule = None
    if s.stop is not None:
        # What watches validation is left to the validation; a norm is the runner's to look at.
        rule = s.stop.rule
        if s.stop.watch is not None:
            rule = rule._replace(loss_below=None, no_improvement_for=None)
        rule = rule if any(condition is not None for condition in rule) else None
    tqdm = import_tqdm() if s.progress else None
    try:
        if validation is not None:
            validation.check(
                in_memory(rows), native=chosen.plan.method in ("stepwise", "compressed")
            )
        epochs = _epochs(rows, chosen, model, optimizer, s)
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


def _trainable(model: Any, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What training changes, or would once a callback lets it be trained."""
    tensors = [p for group in optimizer.param_groups for p in group["params"]]
    if isinstance(model, torch.nn.Module):
        tensors += [*filterfalse(is_lazy, model.parameters()), *model.buffers()]
    return list({id(tensor): tensor for tensor in tensors}.values())


def _epochs(
    data: Data,
    chosen: Chosen,
    model: Any,
    optimizer: torch.optim.Optimizer,
    settings: Settings,
) -> Epochs:
    if isinstance(data, Rows):
        return FullBatch(data, chosen.runner, chosen.plan.costs)
    per_step = settings.scheduler if settings.scheduler_interval == "step" else None
    return InBatches(data, chosen.runner, _tensors(model, optimizer), optimizer, per_step)


def _events_of(
    model: Any,
    settings: Settings,
    recorder: Recorder,
    validation: Validation | None,
    after_callbacks: Callable[[int], None],
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
        events.append(_events.logging(recorder, s.epochs, s.log_every))
    if s.callbacks:
        events.append(_events.calling(s.callbacks, model, s.callback_every, after_callbacks))
    return events
