"""Names that differ from each other."""

import itertools
from collections.abc import Iterable


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """The names, those that come again with a number: W, W_1."""
    taken: dict[str, None] = {}
    for name in names:
        number = itertools.count(1)
        fresh = name
        while fresh in taken:
            fresh = f"{name}_{next(number)}"
        taken[fresh] = None
    return tuple(taken)
