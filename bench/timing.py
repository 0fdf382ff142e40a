"""Interleaved timing: contenders take turns in one process, and none is timed before it is right.

A round times every contender once, one after the other: A B C, then B C A, then C A B. What
disturbs the machine for longer than a sample disturbs all of them, and the ratio of two is taken
round by round, so that it cancels. Before each sample the process waits until its own threads are
idle: an OpenMP team spins for about 10 ms after its work, and NumPy's BLAS for 100 ms, on the core
that the next contender needs.
"""

from __future__ import annotations

import functools
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agreement import DisagreementError, Expected, Outcome, as_returned


def nothing() -> None:
    """What a contender without state does to start again."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Args:
        name: How tables call it.
        run: One call of the work; this alone is timed.
        outcome: What the last call gave, from the value that ``run`` returned.
        reset: Puts the contender's own state back to the start.
    """

    name: str
    run: Callable[[], Any]
    outcome: Callable[[Any], Outcome] = as_returned
    reset: Callable[[], None] = nothing


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
class Case:
    """Contenders for one piece of work; the first is gdcore's, to which the others are compared.

    Args:
        contenders: gdcore's first.
        checks: What they must come to before anything is timed; empty where building has checked.
        unit: What a time is given for: ``step``, ``epoch``, ``run`` or ``call``.
        units: How many of these one call does.
        read_bytes: What one unit must read at least, each byte once; its working set.
        probe: An array past the caches; a plain sum of it is timed in the same rounds.
        note: What to know in reading the table.
    """

    contenders: Sequence[Contender]
    checks: Sequence[Check]
    unit: str
    units: int = 1
    read_bytes: int | None = None
    probe: Tensor | None = None
    note: str = ""


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Args:
        sample_seconds: A sample repeats the call until it takes about this long.
        case_seconds: No new round after this long.
        least_rounds: But at least so many.
        most_rounds: And no more than so many.
    """

    sample_seconds: float
    case_seconds: float
    least_rounds: int
    most_rounds: int

    def shortened(self, by: int) -> Effort:
        """So many times less long, down to three rounds."""
        least = min(3, self.least_rounds)
        return replace(self, case_seconds=self.case_seconds / by, least_rounds=least)


@dataclass(frozen=True)
class Planned:
    """A case that is built, with its data, only when its turn comes.

    Args:
        shorten: Measure for so many times less long than other cases.
    """

    suite: str
    name: str
    build: Callable[[], Case]
    shorten: int = 1


# A first call may be slow for reasons of its own, but hardly by this much.
LONG_CALL = 0.05

FULL = Effort(sample_seconds=0.01, case_seconds=2.5, least_rounds=5, most_rounds=41)
QUICK = Effort(sample_seconds=0.002, case_seconds=0.2, least_rounds=2, most_rounds=9)


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


@dataclass(frozen=True)
class Row:
    """What was measured of one contender.

    Args:
        seconds: Per unit.
        ratio: How many times gdcore's, round by round.
        calls: In one sample.
        share: The rate of reading over that of the plain sum in the same round, where there is one.
    """

    contender: str
    seconds: Spread
    ratio: Spread
    calls: int
    share: Spread | None = None


@dataclass(frozen=True)
class Measured:
    """What was measured of one case; ``probe_rate`` in bytes per second."""

    suite: str
    name: str
    unit: str
    units: int
    rounds: int
    read_bytes: int | None
    rows: Sequence[Row]
    probe_rate: Spread | None
    note: str

    def row(self, contender: str) -> Row:
        return next(row for row in self.rows if row.contender == contender)


def verify(case: Case) -> dict[str, float]:
    """Run every contender from the start and compare what it comes to.

    Returns:
        The seconds that the last call of each took, to plan the timing by.

    Raises:
        DisagreementError: one comes to something else.
    """
    taken: dict[str, float] = {}
    for contenders, calls, expected, where in case.checks:
        for contender in contenders:
            contender.reset()
            for _ in range(calls):
                start = time.perf_counter()
                value = contender.run()
                taken[contender.name] = time.perf_counter() - start
            try:
                expected.check(contender.outcome(value))
            except DisagreementError as error:
                raise DisagreementError(f"{contender.name}, {where}: {error}") from None
    return taken


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


def calls_for(run: Callable[[], Any], seconds: float) -> int:
    """How many calls take about so many seconds."""
    calls, taken = 1, time_calls(run, 1)
    while taken < seconds / 4:
        calls *= 2
        taken = time_calls(run, calls)
    return max(1, round(calls * seconds / taken))


def interleave(
    runs: Sequence[Callable[[], Any]], effort: Effort, known: Sequence[float] = ()
) -> tuple[list[list[float]], list[int]]:
    """Seconds per call, by what was run and by round; and the calls in each one's sample.

    Args:
        known: The seconds of one call of each, where they are known; long ones are not tried out.
    """
    guesses = [*known, *[0.0] * (len(runs) - len(known))]
    short = [guess < LONG_CALL for guess in guesses]
    calls = [
        calls_for(run, effort.sample_seconds) if tried else 1
        for run, tried in zip(runs, short, strict=True)
    ]
    samples: list[list[float]] = [[] for _ in runs]
    started = time.perf_counter()
    for done in range(effort.most_rounds):
        late = time.perf_counter() - started > effort.case_seconds
        if done >= effort.least_rounds and late:
            break
        for turn in range(len(runs)):
            which = (done + turn) % len(runs)
            wait_until_idle()
            if short[which]:
                # Caches and sleeping threads are brought back before the clock starts.
                time_calls(runs[which], 1 + calls[which] // 10)
            samples[which].append(time_calls(runs[which], calls[which]) / calls[which])
    return samples, calls


def measure(planned: Planned, effort: Effort) -> Measured:
    """Build a case, check it, then time it.

    Raises:
        DisagreementError: a contender comes to something else; nothing has been timed then.
    """
    case = planned.build()
    try:
        taken = verify(case)
    except DisagreementError as error:
        raise DisagreementError(f"{planned.suite}, {planned.name}: {error}") from None
    for contender in case.contenders:
        contender.reset()
    runs: list[Callable[[], Any]] = [contender.run for contender in case.contenders]
    if case.probe is not None:
        runs.append(functools.partial(torch.sum, case.probe))
    samples, calls = interleave(
        runs,
        effort.shortened(planned.shorten),
        [taken.get(contender.name, 0.0) for contender in case.contenders],
    )
    fused = samples[0]
    probe_rates = []
    if case.probe is not None:
        read = case.probe.numel() * case.probe.element_size()
        probe_rates = [read / second for second in samples.pop()]

    def share(sample: Sequence[float]) -> Spread | None:
        if not probe_rates or case.read_bytes is None:
            return None
        rates = [case.read_bytes * case.units / second for second in sample]
        return Spread.of([rate / probe for rate, probe in zip(rates, probe_rates, strict=True)])

    rows = [
        Row(
            contender.name,
            Spread.of([second / case.units for second in sample]),
            Spread.of([second / ours for second, ours in zip(sample, fused, strict=True)]),
            count,
            share(sample),
        )
        for contender, sample, count in zip(case.contenders, samples, calls, strict=False)
    ]
    return Measured(
        suite=planned.suite,
        name=planned.name,
        unit=case.unit,
        units=case.units,
        rounds=len(fused),
        read_bytes=case.read_bytes,
        rows=rows,
        probe_rate=Spread.of(probe_rates) if probe_rates else None,
        note=case.note,
    )
