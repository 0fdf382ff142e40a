"""What a way to train counts on, and whether a callback has changed it."""

import operator
from typing import Any

import torch
from torch import Tensor

from .choice import Chosen


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
        self._values = [p.detach().clone() for p in self._rest] if native else []

    def changed(self) -> bool:
        own, rest, trained = self._look()
        return (
            trained != self._trained
            or not _same(own, self._own)
            or not _same(rest, self._rest)
            # By value: what is written through ``.data`` or NumPy moves no version on.
            or not all(map(_equal, rest, self._values))
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


def _equal(one: Tensor, other: Tensor) -> bool:
    return (one.dtype, one.device) == (other.dtype, other.device) and torch.equal(one, other)
