"""Orders of rows that torch draws, without what it takes to draw them.

`torch.randperm` takes longer than a pass of training over the rows, and a `DataLoader` with a
generator of its own calls it twice an epoch, the second time for nothing. So the native loop draws
the same rows itself, as it comes to need them; the generator moves on at once, as it does for
torch. That rows and generator are the same is tried out once; were they not, torch would be called.
"""

import functools

import torch
from torch import Tensor

from .. import _ops

__all__ = ["Order", "Shuffled", "rows_in", "shuffled", "skip"]

_FEWEST, _MOST = 1 << 12, 1 << 24
"""Rows from which on this is faster, and up to which it ends long before Ctrl-C is due."""


class Shuffled:
    """The first ``count`` rows of ``torch.randperm(n)``, from the state of a generator."""

    def __init__(self, state: Tensor, n: int, count: int) -> None:
        self.state, self.n, self.count = state, n, count

    def __len__(self) -> int:
        return self.count

    def first(self, count: int) -> "Shuffled":
        return Shuffled(self.state, self.n, count)

    def tensor(self) -> Tensor:
        generator = torch.Generator()
        generator.set_state(self.state)
        return torch.randperm(self.n, generator=generator, device="cpu")[: self.count]


Order = Tensor | Shuffled
"""The rows of an epoch, drawn or to be drawn."""


def rows_in(order: Order) -> Tensor:
    """The rows themselves."""
    return order.tensor() if isinstance(order, Shuffled) else order


def shuffled(n: int, generator: torch.Generator) -> Order:
    """``torch.randperm(n, generator=generator)``."""
    if not _natively(n, generator):
        return torch.randperm(n, generator=generator, device="cpu")
    before = generator.get_state()
    skip(n, generator)
    return Shuffled(before, n, n)


def skip(n: int, generator: torch.Generator) -> None:
    """Move a generator on as drawing an order of n rows does."""
    if not _natively(n, generator):
        torch.randperm(n, generator=generator, device="cpu")
        return
    state = generator.get_state()
    _ops.shuffle(state, n, None)
    generator.set_state(state)


def _natively(n: int, generator: torch.Generator) -> bool:
    return _FEWEST <= n <= _MOST and generator.device.type == "cpu" and _as_torch_does()


@functools.cache
def _as_torch_does() -> bool:
    """Whether rows and generator are the same, from within one block of numbers into another."""
    n = 1500
    theirs = torch.Generator().manual_seed(1)
    torch.randperm(100, generator=theirs, device="cpu")
    state = theirs.get_state()
    order = torch.empty(n, dtype=torch.int64, device="cpu")
    try:
        _ops.shuffle(state, n, order)
    except ValueError:  # a state that is laid out otherwise
        return False
    same = torch.equal(order, torch.randperm(n, generator=theirs, device="cpu"))
    return same and torch.equal(state, theirs.get_state())
