"""The same shape in every kind of memory that a kernel may read.

What lies between the elements is NaN, so that a kernel which reads it cannot hide it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Layout = Callable[[Tensor], Tensor]


def _filled(tensor: Tensor, *shape: int) -> Tensor:
    return torch.full(shape, torch.nan, dtype=tensor.dtype)


def contiguous(t: Tensor) -> Tensor:
    return t.clone(memory_format=torch.contiguous_format)


def misaligned(t: Tensor) -> Tensor:
    """Contiguous, but one element past any alignment."""
    memory = _filled(t, t.numel() + 2)
    view = memory[1:-1].view(t.shape)
    return view.copy_(t)


def padded_rows(t: Tensor) -> Tensor:
    return _filled(t, t.shape[0], t.shape[1] + 3)[:, 1:-2].copy_(t)


def every_third_row(t: Tensor) -> Tensor:
    return _filled(t, 3 * t.shape[0], t.shape[1])[::3].copy_(t)


def every_other_column(t: Tensor) -> Tensor:
    return _filled(t, t.shape[0], 2 * t.shape[1])[:, ::2].copy_(t)


def transposed(t: Tensor) -> Tensor:
    return contiguous(t.t()).t()


def one_row(t: Tensor) -> Tensor:
    """Every row the same memory: a stride of zero. Keeps the first row only."""
    return contiguous(t[:1]).expand(t.shape)


def one_column(t: Tensor) -> Tensor:
    return contiguous(t[:, :1]).expand(t.shape)


def every_other(t: Tensor) -> Tensor:
    return _filled(t, 2 * t.shape[0])[::2].copy_(t)


def one_value(t: Tensor) -> Tensor:
    return contiguous(t[:1]).expand(t.shape)


MATRICES: dict[str, Layout] = {
    layout.__name__: layout
    for layout in (
        contiguous,
        misaligned,
        padded_rows,
        every_third_row,
        every_other_column,
        transposed,
        one_row,
        one_column,
    )
}
VECTORS: dict[str, Layout] = {
    layout.__name__: layout for layout in (contiguous, misaligned, every_other, one_value)
}
