"""What happens between the epochs of a fit: validation, schedules, lines of text, callbacks."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from .names import short_names
from .recorder import Recorder
from .validation import Validation

Callback = Callable[[int, float, Any], object]


class Event(NamedTuple):
    """What is done after the update of epochs 0, ``every``, 2 ``every``, …."""

    every: int
    action: Callable[[int, float], bool]
    """Takes the epoch and its loss; whether to stop."""
    whole: bool = True
    """Whether Ctrl-C waits until it is done."""


def validating(validation: Validation, every: int, recorder: Recorder) -> Event:
    def action(epoch: int, loss: float) -> bool:
        stop = validation(epoch)
        for name, value in validation.values.items():
            recorder.validation.setdefault(name, []).append(value)
        return stop

    return Event(every, action)


def scheduling(scheduler: Any, validation: Validation | None, every: int) -> Event:
    """A plateau is one of the training loss, or, where a rule watches validation, of that."""
    plateau = isinstance(scheduler, ReduceLROnPlateau)

    def action(epoch: int, loss: float) -> bool:
        if not plateau:
            scheduler.step()
        elif validation is None:
            scheduler.step(loss)
        else:
            scheduler.step(validation.watched)
        return False

    return Event(every if plateau and validation is not None else 1, action)


def logging(recorder: Recorder, epochs: int, every: int) -> Event:
    def action(epoch: int, loss: float) -> bool:
        print(line(recorder.parameters, epoch, epochs, loss))
        return False

    return Event(every, action)


def line(parameters: dict[str, Tensor], epoch: int, epochs: int, loss: float) -> str:
    """``Epoch  100/1999 W: 1.746, b: 0.578 Cost: 0.048171``."""
    names = short_names(list(parameters))
    shown = ", ".join(
        f"{name}: {_digits(values)}"
        for name, values in zip(names, parameters.values(), strict=True)
    )
    return f"Epoch {epoch:4d}/{epochs - 1} {shown} Cost: {loss:.6f}"


def _digits(values: Tensor, most: int = 8) -> str:
    if values.numel() == 1:
        return f"{values.item():.3f}"
    flat = values.detach().reshape(-1)
    more = ", …" if len(flat) > most else ""
    return f"[{', '.join(f'{value:.3f}' for value in flat[:most].tolist())}{more}]"


def calling(
    callbacks: Sequence[Callback], model: Any, every: int, then: Callable[[int], None]
) -> Event:
    """``then`` takes the epoch, where the fit goes on after the callbacks."""

    def action(epoch: int, loss: float) -> bool:
        answers = [callback(epoch, loss, model) for callback in callbacks]
        stop = any(map(_is_true, answers))
        if not stop:
            then(epoch)
        return stop

    return Event(every, action, whole=False)


def _is_true(answer: Any) -> bool:
    """PyTorch's and NumPy's truth is one, too; a number, or any other object, is none."""
    if isinstance(answer, Tensor):
        return answer.dtype is torch.bool and bool(answer.all())
    return isinstance(answer, (bool, np.bool_)) and bool(answer)
