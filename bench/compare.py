"""What moved between two runs: ratios to contenders beside it, beyond the noise of both.

Machines and days differ, and a time moves with them; a ratio to what ran in the same rounds hardly
does. For each case and each contender the logarithm of the ratio, round by round, has a median
with a standard error in both runs. A case's change is the median of its contenders' changes: one
contender that moved by itself moves no case. A case moved where its change is beyond
`ERRORS` standard errors, and is a regression where it has also lost more than `TOLERANCE`.

The quartiles of fewer than `FEW_ROUNDS` rounds say little. There the standard error is taken to be
the whole range: of three rounds of a normal distribution, three ranges are exceeded as seldom as
three true standard errors (Student's t with the freedom of both runs). Of fewer than `LEAST_ROUNDS`
nothing is said.
"""

from __future__ import annotations

import math
from collections import Counter
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
FEW_ROUNDS, LEAST_ROUNDS = 5, 3
# Where these differ, ratios move without a change of gdcore's.
MACHINE = ("cpu", "usable_cores", "torch_threads", "gdcore_threads", "gdcore_instruction_set")

Key = tuple[str, str]


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
    def visible(self) -> float:
        """The least part of the ratio whose loss would have counted as moved."""
        return 1 - math.exp(-ERRORS * self.error)

    @property
    def regressed(self) -> bool:
        return self.moved and self.factor < 1 - TOLERANCE


def log_ratio(peer: Sequence[float], ours: Sequence[float]) -> tuple[float, float]:
    """The median over rounds, and its standard error."""
    logs = [math.log(a / b) for a, b in zip(peer, ours, strict=True)]
    spread = Spread.of(logs)
    if len(logs) < FEW_ROUNDS:
        error = max(logs) - min(logs)
    else:
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


def by_key(run: Mapping[str, Any]) -> dict[Key, Mapping[str, Any]]:
    return {(case["suite"], case["name"]): case for case in run["cases"]}


def rounds(case: Mapping[str, Any]) -> int:
    return len(case["rows"][0]["samples"])


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Of every case that can be judged: both runs have it, with a contender and with rounds."""
    before, found = by_key(old), []
    for key, case in by_key(new).items():
        if why_unjudged(before.get(key), case) is not None:
            continue
        was, now = peers(before[key]), peers(case)
        # The contender in the middle stands for the case, the lower one of two in the middle.
        both = [name for name in now if name in was]
        moved = sorted(both, key=lambda name: now[name][0] - was[name][0])
        middle = moved[(len(moved) - 1) // 2]
        (old_log, old_error), (new_log, new_error) = was[middle], now[middle]
        error = math.hypot(old_error, new_error)
        change = math.exp(new_log - old_log)
        found.append(Change(*key, change, error, math.exp(old_log), math.exp(new_log)))
    return found


def why_unjudged(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str | None:
    """Why a case cannot be compared; None where it can be."""
    if new is None:
        return "only in the old run"
    if old is None:
        return "only in the new run"
    if min(rounds(old), rounds(new)) < LEAST_ROUNDS:
        return f"fewer than {LEAST_ROUNDS} rounds"
    if not peers(old).keys() & peers(new).keys():
        return "no peer in both runs"
    return None


def unjudged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Key]]:
    """The cases that cannot be compared, by the reason."""
    before, after = by_key(old), by_key(new)
    found: dict[str, list[Key]] = {}
    for key in {**before, **after}:
        reason = why_unjudged(before.get(key), after.get(key))
        if reason is not None:
            found.setdefault(reason, []).append(key)
    return found


def unjudged_text(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What the comparison says nothing of; a suite that is left out as a whole has no names."""
    lines = ["Not judged:", "", "- times by themselves; accuracy, memory and the busy neighbour"]
    sizes = Counter(suite for suite, _ in {**by_key(old), **by_key(new)})
    for reason, keys in unjudged(old, new).items():
        names: list[str] = []
        for suite, count in Counter(suite for suite, _ in keys).items():
            if count == sizes[suite]:
                names.append(f"all {count} of {suite}")
            else:
                names += [f"{suite}, {name}" for of, name in keys if of == suite]
        lines.append(f"- {reason}: {'; '.join(names)}")
    return [*lines, ""]


def machine_text(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A warning for all that differs between the two machines."""
    was, now = old.get("machine", {}), new.get("machine", {})
    return [
        f"**Another machine:** {key} was {was.get(key)}, now {now.get(key)}; ratios may have moved "
        "with it.\n"
        for key in MACHINE
        if was.get(key) != now.get(key)
    ]


def text(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What moved, the worst first; then what is not judged."""
    found = changes(old, new)
    moved = sorted((one for one in found if one.moved), key=lambda one: one.factor)
    lines = ["## Compared", "", *machine_text(old, new)]
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
    counted = f"{len(found)} cases judged: {len(moved)} moved beyond noise, "
    lines += [f"{counted}{regressed} of them lost more than {100 * TOLERANCE:.0f} %.", ""]
    seen = [
        f"{100 * part:.0f} % in {sum(one.visible <= part for one in found)}"
        for part in (TOLERANCE, 0.2, 0.5)
    ]
    lines += [f"By the noise of both runs a loss would have been seen of {', '.join(seen)}.", ""]
    return lines + unjudged_text(old, new)
