"""What moved between two runs: ratios to contenders beside it, beyond the noise of both.

Machines and days differ, and a time moves with them; a ratio to what ran in the same rounds hardly
does. For each case and each contender the logarithm of the ratio, round by round, has a median
with a standard error in both runs. A case's change is the median of its contenders' changes: one
contender that moved by itself moves no case. A suite's change is the mean of its cases', the whole
run's the mean of its suites'; their errors are smaller, and what all cases have lost a little of
shows there first. Whichever of the three is beyond `ERRORS` standard errors has moved, and is a
regression where it has also lost more than `TOLERANCE`.

Few rounds hardly tell their own deviation. It is drawn towards the deviation that is usual in the
run, as if `USUAL` rounds more had shown it (Smyth 2004, https://doi.org/10.2202/1544-6115.1027).
Of fewer than `LEAST_ROUNDS` nothing is said.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from table import aligned, digits

TOLERANCE = 0.10
# Of the two hundred things that a whole run judges, normal noise moves one in ten runs.
ERRORS = 3.5
# The error of a normal distribution's median over that of its mean.
MEDIAN = 1.2533
# No run tells its own slow drift: nothing smaller than this counts as moved.
LEAST_NOISE = 0.015
USUAL, LEAST_ROUNDS = 4, 3
WHOLE = "everything"
# Where these differ, ratios move without a change of gdcore's.
MACHINE = ("cpu", "usable_cores", "torch_threads", "gdcore_threads", "gdcore_instruction_set")

Key = tuple[str, str]


class Change(NamedTuple):
    """Ratios, new over old, with the standard error of the logarithm.

    Args:
        name: The case; empty for all cases of the suite.
    """

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

    @property
    def where(self) -> str:
        return f"{self.suite}, {self.name}" if self.name else f"{self.suite}, mean"


def log_ratios(case: Mapping[str, Any]) -> dict[str, list[float]]:
    """Of each contender that is not gdcore's, round by round."""
    ours, *others = case["rows"]
    return {
        row["contender"]: [
            math.log(a / b) for a, b in zip(row["samples"], ours["samples"], strict=True)
        ]
        for row in others
        if not row["contender"].startswith("gdcore")
    }


def usual_variance(run: Mapping[str, Any]) -> float:
    """From round to round, in the middle of all ratios of a run."""
    found = [
        statistics.variance(logs)
        for case in run["cases"]
        if rounds(case) >= LEAST_ROUNDS
        for logs in log_ratios(case).values()
    ]
    return statistics.median(found) if found else 0.0


def peers(case: Mapping[str, Any], usual: float) -> dict[str, tuple[float, float]]:
    """The median logarithm of each contender's ratio, and its standard error."""
    found = {}
    for name, logs in log_ratios(case).items():
        free = len(logs) - 1
        variance = (USUAL * usual + free * statistics.variance(logs)) / (USUAL + free)
        error = MEDIAN * math.sqrt(variance / len(logs))
        found[name] = statistics.median(logs), max(error, LEAST_NOISE)
    return found


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
    usual = usual_variance(old), usual_variance(new)
    for key, case in by_key(new).items():
        if why_unjudged(before.get(key), case) is not None:
            continue
        was, now = peers(before[key], usual[0]), peers(case, usual[1])
        both = [name for name in now if name in was]
        moved = statistics.median(now[name][0] - was[name][0] for name in both)
        # All have gdcore's noise in common, so that several are hardly surer than one.
        error = statistics.median(math.hypot(was[name][1], now[name][1]) for name in both)
        before_log = statistics.median(was[name][0] for name in both)
        ratios = math.exp(before_log), math.exp(before_log + moved)
        found.append(Change(*key, math.exp(moved), error, *ratios))
    return found


def means(cases: Sequence[Change]) -> list[Change]:
    """Of each suite with several cases that could be judged, and of several suites."""
    suites = {one.suite: [other for other in cases if other.suite == one.suite] for one in cases}
    each = [mean(suite, found) for suite, found in suites.items()]
    found = [one for one in each if len(suites[one.suite]) > 1]
    return [*found, mean(WHOLE, each)] if len(each) > 1 else found


def mean(name: str, parts: Sequence[Change]) -> Change:
    """The geometric mean of changes whose errors have nothing to do with one another."""
    error = max(math.hypot(*(one.error for one in parts)) / len(parts), math.sqrt(2) * LEAST_NOISE)
    factor, old, new = (
        statistics.geometric_mean(values)
        for values in zip(*((one.factor, one.old, one.new) for one in parts), strict=True)
    )
    return Change(name, "", factor, error, old, new)


def judged(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """The cases, the suites and the whole."""
    cases = changes(old, new)
    return [*cases, *means(cases)]


def why_unjudged(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str | None:
    """Why a case cannot be compared; None where it can be."""
    if new is None:
        return "only in the old run"
    if old is None:
        return "only in the new run"
    if min(rounds(old), rounds(new)) < LEAST_ROUNDS:
        return f"fewer than {LEAST_ROUNDS} rounds"
    if not log_ratios(old).keys() & log_ratios(new).keys():
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
    cases = changes(old, new)
    found = [*cases, *means(cases)]
    moved = sorted((one for one in found if one.moved), key=lambda one: one.factor)
    lines = ["## Compared", "", *machine_text(old, new)]
    if moved:
        rows = [["case", "old ratio", "new ratio", "moved by", "noise", ""]]
        for one in moved:
            noise = f"± {100 * ERRORS * one.error:.0f} %"
            by = f"{100 * (one.factor - 1):+.0f} %"
            verdict = "**regression**" if one.regressed else ""
            rows.append([one.where, digits(one.old), digits(one.new), by, noise, verdict])
        lines += [*aligned(rows), ""]
    regressed = sum(one.regressed for one in moved)
    counted = f"{len(cases)} cases judged, and {len(found) - len(cases)} means: "
    counted += f"{len(moved)} moved beyond noise, "
    lines += [f"{counted}{regressed} of them lost more than {100 * TOLERANCE:.0f} %.", ""]
    seen = [
        f"{100 * part:.0f} % in {sum(one.visible <= part for one in cases)} cases"
        for part in (TOLERANCE, 0.2, 0.5)
    ]
    seen += [f"{100 * one.visible:.0f} % of {one.suite}" for one in found[len(cases) :]]
    lines += [f"By the noise of both runs a loss would have been seen of {', '.join(seen)}.", ""]
    return lines + unjudged_text(old, new)
