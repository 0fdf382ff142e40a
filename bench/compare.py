"""What moved between two runs: ratios to contenders beside it, beyond the noise of both.

Machines and days differ, and a time moves with them; a ratio to what ran in the same rounds hardly
does. For each case and each contender the logarithm of the ratio, round by round, has a median
with a standard error in both runs. A case's change is the median of its contenders' changes: one
contender that moved by itself moves no case. A case moved where its change is beyond
`ERRORS` standard errors, and is a regression where it has also lost more than `TOLERANCE`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from table import aligned, digits
from timing import Spread

TOLERANCE = 0.10
ERRORS = 3.0
# Of a normal distribution: the quartiles' distance, and the median's error over the mean's.
QUARTILES, MEDIAN = 1.349, 1.2533
# No run tells its own slow drift: nothing smaller than this counts as moved.
LEAST_NOISE = 0.01


class Change(NamedTuple):
    """A case's ratios, new over old, with the standard error of its logarithm."""

    suite: str
    name: str
    factor: float
    error: float
    old: float
    new: float

    @property
    def moved(self) -> bool:
        return abs(math.log(self.factor)) > ERRORS * self.error

    @property
    def regressed(self) -> bool:
        return self.moved and self.factor < 1 - TOLERANCE


def log_ratio(peer: Sequence[float], ours: Sequence[float]) -> tuple[float, float]:
    """The median over rounds, and its standard error."""
    logs = [math.log(a / b) for a, b in zip(peer, ours, strict=True)]
    spread = Spread.of(logs)
    error = MEDIAN * (spread.q75 - spread.q25) / QUARTILES / math.sqrt(len(logs))
    return spread.median, max(error, LEAST_NOISE)


def peers(case: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Of each contender that is not gdcore's."""
    ours, *others = case["rows"]
    return {
        row["contender"]: log_ratio(row["samples"], ours["samples"])
        for row in others
        if not row["contender"].startswith("gdcore")
    }


def check(old: Mapping[str, Any], *, format: int, quick: bool) -> None:
    """Whether a run can be compared with an old one.

    Raises:
        ValueError: The old one was measured otherwise.
    """
    for key, value in (("format", format), ("quick", quick)):
        if old.get(key) != value:
            raise ValueError(f"{key}: expected {value!r} as in this run, got {old.get(key)!r}")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Of every case that both runs have, with a contender that both have."""
    before = {(case["suite"], case["name"]): case for case in old["cases"]}
    found = []
    for case in new["cases"]:
        key = (case["suite"], case["name"])
        if key not in before:
            continue
        was, now = peers(before[key]), peers(case)
        both = [name for name in now if name in was]
        if not both:
            continue
        # The contender in the middle stands for the case, the lower one of two in the middle.
        moved = sorted(both, key=lambda name: now[name][0] - was[name][0])
        middle = moved[(len(moved) - 1) // 2]
        (old_log, old_error), (new_log, new_error) = was[middle], now[middle]
        error = math.hypot(old_error, new_error)
        change = math.exp(new_log - old_log)
        found.append(Change(*key, change, error, math.exp(old_log), math.exp(new_log)))
    return found


def text(found: Sequence[Change]) -> list[str]:
    """What moved, the worst first."""
    moved = sorted((one for one in found if one.moved), key=lambda one: one.factor)
    lines = ["## Compared", ""]
    if moved:
        rows = [["case", "old ratio", "new ratio", "moved by", "noise", ""]]
        for one in moved:
            noise = f"± {100 * ERRORS * one.error:.0f} %"
            by = f"{100 * (one.factor - 1):+.0f} %"
            verdict = "**regression**" if one.regressed else ""
            case = f"{one.suite}, {one.name}"
            rows.append([case, digits(one.old), digits(one.new), by, noise, verdict])
        lines += [*aligned(rows), ""]
    regressed = sum(one.regressed for one in moved)
    counted = f"{len(found)} cases in both runs: {len(moved)} moved beyond noise, "
    return [*lines, f"{counted}{regressed} of them lost more than {100 * TOLERANCE:.0f} %.", ""]
