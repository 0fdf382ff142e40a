"""How bad input is refused: the kind of error, what it says, and that nothing was written."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn


@contextmanager
def refused(kind: type[Exception], argument: str, *parts: str) -> Iterator[None]:
    """Exactly this kind of error: ``argument: expected …, got …``, with each of the parts. A loss's
    error may be a RuntimeError as well.
    """
    with pytest.raises(Exception) as info:  # noqa: PT011 (narrowed just below)
        yield
    message, bases = str(info.value), type(info.value).__bases__
    exactly = type(info.value) is kind or bases == (kind, RuntimeError)
    assert exactly, f"{type(info.value).__name__}: {message}"
    assert message.startswith(f"{argument}: expected "), message
    for part in (*parts, "got "):
        assert part in message, f"{part!r} is not in: {message}"


def _bytes(tensor: Tensor) -> tuple[Any, ...]:
    """A tensor's content to the bit, NaN included, with its version."""
    return repr(tensor.detach().tolist()), tensor._version, id(tensor)


def _state(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [
        (id(parameter), {k: _bytes(v) if isinstance(v, Tensor) else v for k, v in state.items()})
        for parameter, state in optimizer.state.items()
    ]


def _picture(tensors: list[Tensor], optimizer: torch.optim.Optimizer | None) -> list[Any]:
    grads = [None if not t.is_leaf or t.grad is None else _bytes(t.grad) for t in tensors]
    state = [] if optimizer is None else [_state(optimizer), repr(optimizer.param_groups)]
    return [[_bytes(t) for t in tensors], grads, state]


@contextmanager
def nothing_written(
    *tensors: Tensor, model: nn.Module | None = None, optimizer: torch.optim.Optimizer | None = None
) -> Iterator[None]:
    """Values, versions, gradients and the optimizer's whole state are as they were."""
    watched = [*tensors, *(model.parameters() if model is not None else ())]
    watched = [t for t in watched if t.device.type != "meta" and t.layout == torch.strided]
    before = _picture(watched, optimizer)
    yield
    assert _picture(watched, optimizer) == before
