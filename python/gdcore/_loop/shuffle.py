"""Random orders of rows: those that torch draws, without what it takes to draw them.

`torch.randperm` takes longer than a pass of training over the rows, and a `DataLoader` with a
generator of its own calls it twice an epoch, the second time for nothing. The native one moves the
generator on in the same way and gives the same rows; that it does is tried out once, and where it
does not, torch's is called.
"""

import functools

import torch
from torch import Tensor

from .. import _ops

__all__ = ["permutation"]

_FEWEST, _MOST = 1 << 12, 1 << 24
"""Rows from which on the native one is faster, and up to which it ends long before Ctrl-C is due."""


def permutation(n: int, rows: int, generator: torch.Generator) -> Tensor:
    """The first ``rows`` of ``torch.randperm(n, generator=generator)``, as int32 or int64."""
    if _FEWEST <= n <= _MOST and generator.device.type == "cpu" and _as_torch_does():
        return _native(n, rows, generator)
    return torch.randperm(n, generator=generator, device="cpu")[:rows]


def _native(n: int, rows: int, generator: torch.Generator) -> Tensor:
    state = generator.get_state()
    order = torch.empty(n if rows else 0, dtype=torch.int32, device="cpu")
    _ops.order_by_generator(state, n, rows, order)
    generator.set_state(state)
    return order[:rows]


@functools.cache
def _as_torch_does() -> bool:
    """Whether rows and generator are the same, from the middle of a block of numbers to another."""
    n = 1500
    ours, theirs = torch.Generator(), torch.Generator()
    for generator in (ours, theirs):
        torch.randperm(100, generator=generator.manual_seed(1), device="cpu")
    try:
        order = _native(n, n, ours)
    except ValueError:  # a state that is laid out otherwise
        return False
    same = torch.equal(order.long(), torch.randperm(n, generator=theirs, device="cpu"))
    return same and torch.equal(ours.get_state(), theirs.get_state())
