"""Inputs, targets and weights of the same rows."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _checks

Inputs = Tensor | tuple[Tensor, ...]


class Rows(NamedTuple):
    """Inputs, targets, and a weight for each row."""

    x: Inputs
    y: Tensor
    weight: Tensor | None

    @property
    def number(self) -> int:
        first = self.x[0] if isinstance(self.x, tuple) else self.x
        return first.shape[0] if first.dim() else 1


def rows_of(data: Any, weight: Any = None, name: str = "data") -> Rows:
    """Check the form of ``(x, y)`` or ``(x, y, weight)``, not yet whether the shapes fit."""
    if not isinstance(data, (tuple, list)) or not 2 <= len(data) <= 3:
        got = f"{len(data)} of them" if isinstance(data, (tuple, list)) else type(data).__name__
        raise TypeError(f"{name}: expected (x, y) or (x, y, weight), got {got}")
    x, y = data[0], data[1]
    if isinstance(x, (tuple, list)) and x and all(isinstance(each, Tensor) for each in x):
        x = tuple(x)
    else:
        _check_tensor("x", x)
    _check_tensor("y", y)
    if len(data) == 3:
        if weight is not None:
            raise ValueError("weight: expected once, got it in the data and as an argument")
        weight = data[2]
    if weight is not None:
        _check_tensor("weight", weight)
        weight = weight.resolve_neg()  # what reads its memory does not ask
    rows = Rows(x, y, weight)
    if rows.number == 0:
        first = x[0] if isinstance(x, tuple) else x
        raise ValueError(f"{name}: expected at least one row, got x of shape {tuple(first.shape)}")
    if weight is not None and weight.shape != y.shape and weight.shape != (rows.number,):
        what = "weight: expected" if name == "data" else f"{name}: expected a weight of"
        raise ValueError(
            f"{what} shape ({rows.number},), one for each row, or y's {tuple(y.shape)}, "
            f"got {tuple(weight.shape)}"
        )
    if weight is not None and (y.numel() == 0 or y.numel() % rows.number):
        raise ValueError(
            f"y: expected elements for each of {rows.number} weights, got shape {tuple(y.shape)}"
        )
    return rows


def per_element(rows: Rows) -> Tensor | None:
    """The weights, one for each element of y."""
    weight, y = rows.weight, rows.y
    if weight is None or weight.shape == y.shape:
        return weight
    return weight.unsqueeze(1).expand(rows.number, y.numel() // rows.number).reshape(y.shape)


def check_weight(weight: Tensor | None, name: str = "weight", *, all_rows: bool = True) -> None:
    """That weights, where they are plain values, are finite, and of all rows not all of them 0."""
    if weight is None or type(weight) not in _checks.PLAIN or weight.is_meta or weight.is_sparse:
        return
    if not bool(weight.isfinite().all()):
        raise ValueError(f"{name}: expected weights that are finite, got some that are not")
    if all_rows and not bool(weight.any()):
        raise ValueError(f"{name}: expected at least one weight that is not 0, got none")


def check_divisor(weight: Tensor | None) -> None:
    """That a mean, which is divided by the weights' sum, has one."""
    if weight is not None and float(weight.sum(dtype=torch.float64)) == 0:
        raise ValueError(
            "weight: expected a sum that is not 0, for a mean, got weights that cancel"
        )


def _check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
