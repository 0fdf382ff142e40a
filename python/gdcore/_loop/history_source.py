"""What a history was made from, for as long as others keep it."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import nn
from .batches import Batches, Data, Reader

_PLAIN = (torch.nn.MSELoss, nn.MSELoss)
"""Losses that hold no data, and are often made in the call of `fit` itself."""


class Trained(NamedTuple):
    """The arguments of a fit, as `gdcore.curvature` takes them."""

    model: Any
    loss_fn: Any
    data: tuple[Tensor, ...]
    parameters: tuple[Tensor, ...]

    def is_of(self, other: Trained) -> bool:
        """Whether these are the same objects, or losses alike."""
        mine = (self.model, *self.data, *self.parameters)
        others = (other.model, *other.data, *other.parameters)
        loss, another = self.loss_fn, other.loss_fn
        plain = type(loss) in _PLAIN and type(loss) is type(another)
        return (
            len(mine) == len(others)
            and all(one is its for one, its in zip(mine, others, strict=True))
            and (loss is another or (plain and loss.reduction == another.reduction))
        )


class Source:
    """The model, loss function and data of a fit. It keeps no data alive.

    A copy or pickle of it is None: it would not refer to what is copied beside it.
    """

    def __init__(
        self, model: Any, loss_fn: Any, data: Sequence[Tensor], parameters: Sequence[Tensor]
    ) -> None:
        self._model, self._loss_fn = _reference(model), _reference(loss_fn)
        self._data = [(weakref.ref(tensor), _version(tensor)) for tensor in data]
        self._parameters = [weakref.ref(parameter) for parameter in parameters]

    def trained(self) -> Trained | None:
        """All of it; None where something is gone, or the data have been written to since."""
        model, loss_fn = self._model(), self._loss_fn()
        data: list[Tensor] = []
        for reference, version in self._data:
            tensor = reference()
            if tensor is None or _version(tensor) != version:
                return None
            data.append(tensor)
        parameters = [p for p in (reference() for reference in self._parameters) if p is not None]
        if model is None or loss_fn is None or len(parameters) < len(self._parameters):
            return None
        return Trained(model, loss_fn, tuple(data), tuple(parameters))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def source_of(model: Any, loss_fn: Any, data: Data, parameters: Sequence[Tensor]) -> Source | None:
    """None where the data are not two or three tensors, or something cannot be referred to."""
    if isinstance(data, Reader):
        return None
    x, y, weight = data.rows if isinstance(data, Batches) else data
    if not isinstance(x, Tensor):
        return None
    try:
        return Source(model, loss_fn, [x, y] if weight is None else [x, y, weight], parameters)
    except TypeError:  # of a class with slots, say
        return None


def _reference(value: Any) -> Callable[[], Any]:
    if type(value) in _PLAIN:
        return lambda: value
    return weakref.WeakMethod(value) if inspect.ismethod(value) else weakref.ref(value)


def _version(tensor: Tensor) -> int:
    """Counts what was written in place."""
    return 0 if tensor.is_inference() else tensor._version
