"""A case of the bench: contenders for one piece of work, what they must come to, a limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agreement import Expected, Outcome, as_returned

# The name of a contender that computes nothing: what its way of working takes at least.
FLOOR = "floor"


# What begins with this is gdcore's, too.
OURS = "gdcore"


def nothing() -> None:
    """What a contender without state does to start again."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Args:
        name: How tables call it; the same way of working has the same name everywhere.
        run: One call of the work; this alone is timed.
        outcome: What the last call gave, from the value that ``run`` returned.
        reset: Puts the contender's own state back to the start.
        units: How many units one call does, where that is not the case's number.
        compiles: Whether its first call compiles, so that this call's time is worth telling.
    """

    name: str
    run: Callable[[], Any]
    outcome: Callable[[Any], Outcome] = as_returned
    reset: Callable[[], None] = nothing
    units: float | None = None
    compiles: bool = False


class Check(NamedTuple):
    """After so many calls from the start, every contender must have come to what is expected.

    Args:
        where: The place that this is, for the message.
    """

    contenders: Sequence[Contender]
    calls: int
    expected: Expected
    where: str


@dataclass(frozen=True)
class Limit:
    """The most that the machine can do of one thing: work that consists of nothing else.

    Args:
        name: What it is a limit of.
        unit: What is counted: ``B`` for bytes, ``FMA`` for multiply-adds.
        amount: How much of it one call does.
        run: One call.
    """

    name: str
    unit: str
    amount: float
    run: Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """Contenders for one piece of work; the first is gdcore's, to which the others are compared.

    Args:
        contenders: gdcore's first.
        checks: What they must come to before anything is timed; empty where building has checked.
        unit: What a time is given for: ``step``, ``epoch``, ``run`` or ``call``.
        units: How many of these one call does.
        limit: What bounds the work; it is timed in the same rounds.
        work: How much of what the limit counts one unit needs at least.
        missing: Why a contender does not take part, by its name.
    """

    contenders: Sequence[Contender]
    checks: Sequence[Check]
    unit: str
    units: int = 1
    limit: Limit | None = None
    work: float = 0.0
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """A case that is built, with its data, only when its turn comes.

    Args:
        weight: The part of the run's time that it gets, beside the other cases'.
    """

    suite: str
    name: str
    build: Callable[[], Case]
    weight: float = 1.0
