"""What a way to train counts on, and whether a callback has changed it."""

import operator
from typing import Any

import torch
from torch import Tensor

from .choice import Chosen

_FEW = 2**16


class Held:
    """The parameters of a model and its optimizer, as they are when a way is chosen.

    A native loop sees by itself what becomes of those that it updates, unless the model has others
    in their place. Of the rest it counts on which are trained, and, as constants that the features
    or targets were formed with, on their values.
    """

    def __init__(self, model: Any, optimizer: torch.optim.Optimizer, chosen: Chosen) -> None:
        self._model, self._optimizer = model, optimizer
        native = chosen.plan.method in ("stepwise", "compressed")
        updated = chosen.parameters.values() if native else ()
        self._updated = {id(parameter): parameter for parameter in updated}
        self._own, self._rest, self._trained = self._look()
        self._values = list(map(_value, self._rest)) if native else []

    def changed(self) -> bool:
        own, rest, trained = self._look()
        return (
            trained != self._trained
            or not _same(own, self._own)
            or not _same(rest, self._rest)
            or not all(map(_unchanged, rest, self._values))
        )

    def _look(self) -> tuple[list[Tensor], list[Tensor], list[bool]]:
        """The model's parameters; those that are not updated; which of these are trained."""
        model = self._model
        own: list[Tensor] = list(model.parameters()) if isinstance(model, torch.nn.Module) else []
        held: dict[int, Tensor] = {
            id(p): p for group in self._optimizer.param_groups for p in group["params"]
        }
        every = {**held, **{id(p): p for p in own}}
        rest = [p for place, p in every.items() if place not in self._updated]
        return own, rest, [p.requires_grad and id(p) in held for p in rest]


def _same(ones: list[Tensor], others: list[Tensor]) -> bool:
    return len(ones) == len(others) and all(map(operator.is_, ones, others))


def _value(tensor: Tensor) -> Tensor | int:
    """Of few numbers themselves: what is written through ``.data`` or NumPy moves no version on.
    Of many only their version.
    """
    return tensor.detach().clone() if tensor.numel() <= _FEW else _version(tensor)


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _unchanged(tensor: Tensor, before: Tensor | int) -> bool:
    if not isinstance(before, Tensor):
        return _version(tensor) == before
    alike = (tensor.dtype, tensor.device) == (before.dtype, before.device)
    return alike and torch.equal(tensor, before)
