"""Sizes and shapes of the tensors that the terms of an affine value are made of."""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

__all__ = ["LIMIT", "NoRuleError", "broadcast", "check_size", "groups", "regroup"]

LIMIT = 2**26
"""Elements of the largest tensor that recognising a model forms beside what the model forms."""


class NoRuleError(Exception):
    """An operation whose result is not known to be affine, or is too large; says which."""


def broadcast(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """The shape of an elementwise result (a tenth of the time of ``torch.broadcast_shapes``)."""
    if len(a) < len(b):
        a, b = b, a
    lead = len(a) - len(b)
    return (*a[:lead], *(t if s == 1 else s for s, t in zip(a[lead:], b, strict=True)))


def check_size(*sizes: int) -> None:
    elements = math.prod(sizes)
    if elements > LIMIT:
        raise NoRuleError(f"its features would take {elements} numbers, more than {LIMIT}")


def groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of sizes with equal products in two shapes of one number of elements."""
    groups = []
    i = j = 0
    while i < len(old) and j < len(new):
        a, b = [old[i]], [new[j]]
        i, j = i + 1, j + 1
        left, right = a[0], b[0]
        while left != right:
            if left < right:
                a.append(old[i])
                left *= old[i]
                i += 1
            else:
                b.append(new[j])
                right *= new[j]
                j += 1
        groups.append((a, b))
    groups += [([size], []) for size in old[i:]] + [([], [size]) for size in new[j:]]
    return groups


def regroup(
    part: Tensor, runs: list[tuple[list[int], list[int]]], keep: Callable[[list[int]], bool]
) -> Tensor:
    """Reshape a term's tensor group by group; one that does not vary in a group stays so."""
    expanded: list[int] = []
    sizes: list[int] = []
    position = 0
    for old, new in runs:
        varies = [part.shape[position + i] for i in range(len(old))]
        position += len(old)
        if keep(new):
            expanded += varies
            sizes += varies
        elif all(size == 1 for size in varies):
            expanded += varies
            sizes += [1] * len(new)
        else:
            expanded += old
            sizes += new
    r = part.shape[-1]
    if expanded != list(part.shape[:-1]):
        check_size(*expanded, r)
    return part.expand(*expanded, r).reshape(*sizes, r)
