"""Features that are columns of x and a column of ones, each times a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..affine import AffineForm

__all__ = ["Features"]

_ROWS = 16
"""Rows by which columns are told apart."""
_MOST_COMPARED = 2**20


def _counted(count: int) -> Tensor:
    return torch.arange(count, device="cpu")  # whatever the default device is


class Features:
    """Columns of [x | 1], each times a number."""

    def __init__(self, columns: Tensor, factors: Tensor, d: int) -> None:
        self.columns, self.factors = columns, factors
        in_order = torch.equal(columns, _counted(len(columns)))
        straight = in_order and bool((factors == 1).all())
        self._is_x, self._appends = straight and len(columns) == d, straight and len(columns) > d
        self._ones = factors.new_empty(0, 1)

    def __call__(self, x: Tensor) -> Tensor:
        n = len(x)
        flat = x.reshape(n, -1)
        if self._is_x:
            return flat
        if len(self._ones) != n:
            self._ones = flat.new_ones(n, 1)
        base = torch.cat((flat, self._ones), 1)
        return base if self._appends else base[:, self.columns] * self.factors

    @staticmethod
    def of(form: AffineForm, x: Tensor) -> Features | None:
        """What a form's seem to be for this x, if they are such columns."""
        n, q = form.features.shape
        if not form.rowwise or form.offset is not None or n != len(x):
            return None
        flat = x.reshape(n, -1)
        d = flat.shape[1]
        if flat.shape == form.features.shape and torch.equal(flat, form.features):
            return Features(_counted(q), flat.new_ones(q), d)
        base, found = flat.new_ones(min(n, _ROWS), d + 1), form.features[:_ROWS]
        if base.numel() * q > _MOST_COMPARED:
            return None
        base[:, :-1] = flat[:_ROWS]
        largest = base.abs().argmax(0)
        by = found[largest] / base[largest, _counted(d + 1), None]
        error = (found[:, None] - base[:, :, None] * by).abs()
        same = (error <= 4 * torch.finfo(x.dtype).eps * found.abs()[:, None]).all(0)
        if not bool(same.any(0).all()):
            return None
        columns = same.int().argmax(0)
        return Features(columns, by[columns, _counted(q)], d)
