"""Interleaved timing: contenders take turns in one process, and none is timed before it is right.

A round times every contender once, one after the other: A B C, then B C A, then C A B. What
disturbs the machine for longer than a sample disturbs all of them, and the ratio of two is taken
round by round, so that it cancels. Before each sample the process waits until its own threads are
idle: an OpenMP team spins for about 10 ms after its work, and NumPy's BLAS for 100 ms, on the core
that the next contender needs.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agreement import DisagreementError
from case import Case, Planned


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Args:
        sample_seconds: A sample repeats the call until it takes about this long.
        case_seconds: No new round after this long, building and checking included.
        least_rounds: But at least so many.
        most_rounds: And no more than so many.
    """

    sample_seconds: float
    case_seconds: float
    least_rounds: int
    most_rounds: int


# A first call may be slow for reasons of its own, but hardly by this much.
LONG_CALL = 0.05

FULL = Effort(sample_seconds=0.005, case_seconds=2.5, least_rounds=3, most_rounds=41)
QUICK = Effort(sample_seconds=0.002, case_seconds=0.5, least_rounds=3, most_rounds=9)


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    q25: float
    q75: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        q25, median, q75 = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, q25, q75)


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Of two contenders' samples, round by round."""
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


@dataclass(frozen=True)
class Row:
    """What was measured of one contender.

    Args:
        samples: Seconds per unit, by round.
        ratio: How many times gdcore's, round by round.
        calls: In one sample.
        compile_seconds: What its first call took, where that compiles.
    """

    contender: str
    samples: Sequence[float]
    ratio: Spread
    calls: int
    compile_seconds: float | None = None

    @property
    def seconds(self) -> Spread:
        return Spread.of(self.samples)


@dataclass(frozen=True)
class Bound:
    """A limit, as it was in the rounds of a case.

    Args:
        samples: Its rate, by round: bytes or multiply-adds in a second.
        share: What part of it gdcore reaches, round by round.
    """

    name: str
    unit: str
    samples: Sequence[float]
    share: Spread


@dataclass(frozen=True)
class Measured:
    """What was measured of one case; ``missing`` says why a contender did not take part."""

    suite: str
    name: str
    unit: str
    units: int
    rows: Sequence[Row]
    bound: Bound | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        return len(self.rows[0].samples)

    def find(self, contender: str) -> Row | None:
        return next((row for row in self.rows if row.contender == contender), None)

    def row(self, contender: str) -> Row:
        found = self.find(contender)
        if found is None:
            raise KeyError(f"{self.suite}, {self.name}: no {contender}")
        return found


def verify(case: Case) -> tuple[dict[str, float], dict[str, float]]:
    """Run every contender from the start and compare what it comes to.

    Returns:
        The seconds that the first and the last call of each took.

    Raises:
        DisagreementError: one comes to something else.
    """
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for contenders, calls, expected, where in case.checks:
        for contender in contenders:
            contender.reset()
            for _ in range(calls):
                start = time.perf_counter()
                value = contender.run()
                last[contender.name] = time.perf_counter() - start
                first.setdefault(contender.name, last[contender.name])
            try:
                expected.check(contender.outcome(value))
            except DisagreementError as error:
                raise DisagreementError(f"{contender.name}, {where}: {error}") from None
    return first, last


def wait_until_idle(longest: float = 0.3, look: float = 0.002) -> None:
    """Sleep until no thread of this process is busy."""
    given_up = time.perf_counter() + longest
    while time.perf_counter() < given_up:
        before = time.process_time()
        time.sleep(look)
        if time.process_time() - before < look / 4:
            return


def time_calls(run: Callable[[], Any], calls: int) -> float:
    """Seconds that so many calls take, without garbage collection in between."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in itertools.repeat(None, calls):
            run()
        return time.perf_counter() - start
    finally:
        if collecting:
            gc.enable()


def calls_for(run: Callable[[], Any], seconds: float) -> tuple[int, float]:
    """How many calls take about so many seconds; and how long one takes."""
    calls, taken = 1, time_calls(run, 1)
    while taken < seconds / 4:
        calls *= 2
        taken = time_calls(run, calls)
    return max(1, round(calls * seconds / taken)), taken / calls


def interleave(
    runs: Sequence[Callable[[], Any]],
    effort: Effort,
    known: Sequence[float] = (),
    started: float | None = None,
) -> tuple[list[list[float]], list[int]]:
    """Seconds per call, by what was run and by round; and the calls in each one's sample.

    Args:
        known: The seconds of one call of each, where they are known; long ones are not tried out.
        started: Since when the effort's seconds are counted, by ``time.perf_counter``.
    """
    started = time.perf_counter() if started is None else started
    guesses = [*known, *[0.0] * (len(runs) - len(known))]
    tried = [
        calls_for(run, effort.sample_seconds) if guess < LONG_CALL else (1, guess)
        for run, guess in zip(runs, guesses, strict=True)
    ]
    calls = [count for count, _ in tried]
    short = [seconds < LONG_CALL for _, seconds in tried]
    samples: list[list[float]] = [[] for _ in runs]
    for done in range(effort.most_rounds):
        late = time.perf_counter() - started > effort.case_seconds
        if done >= effort.least_rounds and late:
            break
        for turn in range(len(runs)):
            which = (done + turn) % len(runs)
            wait_until_idle()
            if short[which]:
                # Caches, sleeping threads and a core that has idled are brought back before the
                # clock starts.
                time_calls(runs[which], calls[which])
            samples[which].append(time_calls(runs[which], calls[which]) / calls[which])
    return samples, calls


def measure(planned: Planned, effort: Effort) -> Measured:
    """Build a case, check it, then time it.

    Raises:
        DisagreementError: a contender comes to something else; nothing has been timed then.
    """
    started = time.perf_counter()
    try:
        case = planned.build()
        first, last = verify(case)
    except DisagreementError as error:
        raise DisagreementError(f"{planned.suite}, {planned.name}: {error}") from None
    for contender in case.contenders:
        contender.reset()
    runs: list[Callable[[], Any]] = [contender.run for contender in case.contenders]
    if case.limit is not None:
        runs.append(case.limit.run)
    known = [last.get(contender.name, 0.0) for contender in case.contenders]
    taken, calls = interleave(runs, effort, known, started)
    bound = None
    if case.limit is not None:
        rates = [case.limit.amount / seconds for seconds in taken.pop()]
        ours = [case.work * case.units / seconds for seconds in taken[0]]
        bound = Bound(case.limit.name, case.limit.unit, rates, ratios(ours, rates))
    samples = [
        [seconds / (contender.units or case.units) for seconds in sample]
        for contender, sample in zip(case.contenders, taken, strict=True)
    ]
    rows = [
        Row(
            contender.name,
            sample,
            ratios(sample, samples[0]),
            count,
            first.get(contender.name) if contender.compiles else None,
        )
        for contender, sample, count in zip(case.contenders, samples, calls, strict=False)
    ]
    return Measured(
        planned.suite, planned.name, case.unit, case.units, rows, bound, dict(case.missing)
    )
