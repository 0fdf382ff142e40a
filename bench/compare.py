"""What moved between two runs: ratios to contenders beside it, beyond the noise of both.

Machines and days differ, and a time moves with them; a ratio to what ran in the same rounds hardly
does. For each row of gdcore's and each other contender of its case the logarithm of the ratio,
round by round, has a median with a standard error in both runs. A row's change is the median over
the contenders: one that moved by itself moves no row. A suite's change is the mean over its cases,
the whole run's the mean over its suites; their errors are smaller, and what all cases have lost a
little of shows there first.

Few rounds hardly tell their own deviation: it is drawn towards what is usual in the run, as if
`USUAL` rounds more had shown that (Smyth 2004, https://doi.org/10.2202/1544-6115.1027), and the
bound is Student's, for so many rounds. What differs from run to run, and not within one, shows in
the changes of all cases: where they scatter by more than their errors, the errors are larger than
they seem. What seems to be lost is measured again, and is a regression where it is lost again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from case import OURS

TOLERANCE = 0.10
# Standard errors of a normal distribution: of two hundred rows one passes in every ten runs.
ERRORS = 3.5
# Of a normal distribution: the error of the median over the mean's, the deviation over the median
# distance.
MEDIAN, DISTANCE = 1.2533, 1.4826
# No run tells its own slow drift: nothing smaller than this counts as moved.
LEAST_NOISE = 0.01
USUAL, LEAST_ROUNDS = 4, 3
# Cases from which on their scatter is known.
ENOUGH = 10
WHOLE = "everything"

Key = tuple[str, str]


class Median(NamedTuple):
    """Of logarithms: with its standard error, and how many rounds that comes from."""

    value: float
    error: float
    freedom: int


class Change(NamedTuple):
    """Ratios, new over old, with the standard error of the logarithm.

    Args:
        name: The case; empty for all cases of the suite.
        row: The contender, where it is not the first of the case.
        freedom: Of the error.
    """

    suite: str
    name: str
    row: str
    factor: float
    error: float
    freedom: int
    old: float
    new: float

    @property
    def noise(self) -> float:
        """The least change of the logarithm that counts: Student's quantile times the error."""
        # The first terms of the quantile's expansion about the normal one, Hill 1970.
        z, n = ERRORS, self.freedom
        first = (z**3 + z) / (4 * n)
        return (z + first + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)) * self.error

    @property
    def moved(self) -> bool:
        return abs(math.log(self.factor)) > self.noise

    @property
    def visible(self) -> float:
        """The least part of the ratio whose loss would have counted as moved."""
        return 1 - math.exp(-self.noise)

    @property
    def regressed(self) -> bool:
        return self.moved and self.factor < 1 - TOLERANCE

    @property
    def key(self) -> tuple[str, str, str]:
        return self.suite, self.name, self.row

    @property
    def where(self) -> str:
        return ", ".join(part for part in (self.suite, self.name or "mean", self.row) if part)


def peers(case: Mapping[str, Any]) -> dict[str, Sequence[float]]:
    """The samples of each contender that is not gdcore's."""
    return {
        row["contender"]: row["samples"]
        for row in case["rows"]
        if not row["contender"].startswith(OURS)
    }


def own(case: Mapping[str, Any]) -> dict[str, Sequence[float]]:
    """The samples of each that is; the first, that of the case, has no name."""
    first, *others = case["rows"]
    return {"": first["samples"]} | {
        row["contender"]: row["samples"] for row in others if row["contender"].startswith(OURS)
    }


def log_ratios(peer: Sequence[float], ours: Sequence[float]) -> list[float]:
    return [math.log(a / b) for a, b in zip(peer, ours, strict=True)]


def usual_variance(run: Mapping[str, Any]) -> float:
    """From round to round, in the middle of all ratios of a run."""
    found = [
        statistics.variance(log_ratios(samples, own(case)[""]))
        for case in run["cases"]
        if rounds(case) >= LEAST_ROUNDS
        for samples in peers(case).values()
    ]
    return statistics.median(found) if found else 0.0


def median(logs: Sequence[float], usual: float) -> Median:
    free, variance = len(logs) - 1, statistics.variance(logs)
    variance = (USUAL * usual + free * variance) / (USUAL + free)
    error = MEDIAN * math.sqrt(variance / len(logs))
    return Median(statistics.median(logs), max(error, LEAST_NOISE), USUAL + free)


def by_key(run: Mapping[str, Any]) -> dict[Key, Mapping[str, Any]]:
    return {(case["suite"], case["name"]): case for case in run["cases"]}


def rounds(case: Mapping[str, Any]) -> int:
    return len(case["rows"][0]["samples"])


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Of every row that can be judged: both runs have it, with a contender and with rounds."""
    before, found = by_key(old), []
    usual = usual_variance(old), usual_variance(new)
    for key, case in by_key(new).items():
        was = before.get(key)
        if was is None or why_unjudged(was, case) is not None:
            continue
        rows = own(case)
        found += [change(key, row, was, case, usual) for row in own(was) if row in rows]
    return scattered(found)


def change(
    key: Key,
    row: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    usual: tuple[float, float],
) -> Change:
    """Of one row, by the contender in the middle or by the two there."""
    was, now = (
        {
            name: median(log_ratios(samples, own(case)[row]), variance)
            for name, samples in peers(case).items()
        }
        for case, variance in zip((old, new), usual, strict=True)
    )
    both = [name for name in now if name in was]
    moved = statistics.median(now[name].value - was[name].value for name in both)
    # All have gdcore's noise in common, so that several are hardly surer than one.
    error = statistics.median(math.hypot(was[name].error, now[name].error) for name in both)
    freedom = min(was[both[0]].freedom, now[both[0]].freedom)
    before = statistics.median(was[name].value for name in both)
    return Change(
        *key, row, math.exp(moved), error, freedom, math.exp(before), math.exp(before + moved)
    )


def scattered(found: Sequence[Change]) -> list[Change]:
    """With errors as large as the changes of most cases say that they are."""
    cases = [one for one in found if not one.row]
    if len(cases) < ENOUGH:
        return list(found)
    middle = statistics.median(math.log(one.factor) for one in cases)
    scatter = statistics.median(abs(math.log(one.factor) - middle) / one.error for one in cases)
    larger = max(1.0, DISTANCE * scatter)
    return [one._replace(error=larger * one.error) for one in found]


def means(found: Sequence[Change]) -> list[Change]:
    """Of each suite with several cases that could be judged, and of several suites."""
    cases = [one for one in found if not one.row]
    suites = {one.suite: [other for other in cases if other.suite == one.suite] for one in cases}
    each = [mean(suite, parts) for suite, parts in suites.items()]
    several = [one for one in each if len(suites[one.suite]) > 1]
    return [*several, mean(WHOLE, each)] if len(each) > 1 else several


def mean(name: str, parts: Sequence[Change]) -> Change:
    """The geometric mean of changes whose errors have nothing to do with one another."""
    error = max(math.hypot(*(one.error for one in parts)) / len(parts), math.sqrt(2) * LEAST_NOISE)
    factor, old, new = (
        statistics.geometric_mean(values)
        for values in zip(*((one.factor, one.old, one.new) for one in parts), strict=True)
    )
    return Change(name, "", "", factor, error, sum(one.freedom for one in parts), old, new)


def judged(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """The rows, the suites and the whole."""
    rows = changes(old, new)
    return [*rows, *means(rows)]


def regressions(
    old: Mapping[str, Any], new: Mapping[str, Any], again: Mapping[str, Any] | None = None
) -> set[tuple[str, str, str]]:
    """What is lost, and lost again where it was measured again."""
    found = {one.key for one in judged(old, new) if one.regressed}
    if again is not None:
        found &= {one.key for one in judged(old, again) if one.regressed}
    return found


def suspects(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[Key]:
    """The cases to be measured again: where something is lost, or a suite's mean is."""
    lost = regressions(old, new)
    suites = {suite for suite, name, _ in lost if not name}
    if (WHOLE, "", "") in lost:
        suites = {one.suite for one in changes(old, new)}
    cases = {(suite, name) for suite, name, _ in lost if name}
    return cases | {(one.suite, one.name) for one in changes(old, new) if one.suite in suites}


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
