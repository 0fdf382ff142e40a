"""How time grows with the work: ``python bench/growth.py`` writes the measured part of
``docs/performance.md`` and its pictures. About four minutes; ``--quick`` tries it out.

Every point takes turns with eager PyTorch, with a JAX scan and with the limits, as a case of the
bench does, after all have come to the same as float64.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import jax_peer
import limits
import machine
import minibatches
from agreement import Expected
from agreement_outputs import expected_outputs
from available import JAX
from case import Case, Check, Contender, Limit
from growth_page import Curve, write
from linear import Problem
from loops import FIT, STEPWISE, Training
from timing import Effort, Spread, interleave, verify

FOLDER = Path(__file__).parents[1] / "docs"
EFFORT = Effort(sample_seconds=0.005, case_seconds=0.8, least_rounds=3, most_rounds=11)
QUICK = Effort(sample_seconds=0.001, case_seconds=0.0, least_rounds=2, most_rounds=2)
THREADS = torch.get_num_threads()
LIMIT = "limit"
# Of the usual loop, and of what is compared.
STEPS = 3


class Point(NamedTuple):
    """Where on a curve, and the work that is done there."""

    at: int
    n: int
    d: int
    k: int = 1


def powers(first: int, last: int, factor: int) -> list[int]:
    found = [first]
    while found[-1] * factor <= last:
        found.append(found[-1] * factor)
    return found


def full_batch_curves(quick: bool) -> Iterator[tuple[str, str, list[Point]]]:
    """Against n, d and k: the file's name, the title, the points."""
    most = 2**14 if quick else 2**20
    for d in (1, 8, 64):
        points = [Point(n, n, d) for n in powers(16, most, 16 if quick else 4)]
        yield "rows", f"d = {d}", points
    n = 1000 if quick else 10_000
    yield "columns", f"n = {n}", [Point(d, n, d) for d in powers(1, 1024, 16 if quick else 2)]
    points = [Point(k, n, 64, k) for k in powers(1, 64, 8 if quick else 2)]
    yield "outputs", f"n = {n}, d = 64", points


@dataclass(frozen=True)
class Timed:
    """Seconds of a step by contender, and of the least that the machine would take."""

    at: int
    seconds: dict[str, Spread]


def bounds_of(p: Problem) -> list[tuple[Limit, float]]:
    """What bounds a step, with how many calls of each limit make up its work."""
    n, d = p.shape
    cores = limits.cores_for(n * (d + 1) * p.y.shape[1])
    # Less than this is summed in no more than a call of C itself takes.
    large = p.read_bytes >= 2**17
    found = [
        (limits.multiply_adds(), p.multiply_adds / cores),
        (limits.reading(p.read_bytes) if large else None, p.read_bytes),
    ]
    return [(limit, work / limit.amount) for limit, work in found if limit is not None]


def checked(contenders: Sequence[Contender], expected: Expected, where: str) -> dict[str, float]:
    """Every contender comes to what is expected.

    Returns:
        The seconds that each took.

    Raises:
        DisagreementError: One does not.
    """
    return verify(Case(contenders, [Check(contenders, 1, expected, where)], "step"))[1]


def scan(p: Problem, epochs: int) -> list[Contender]:
    start = [parameter.detach().numpy() for parameter in p.model().parameters()]
    return jax_peer.scan(jax_peer.linear, start, p.x, p.y, p.lr, epochs)


def time_point(point: Point, effort: Effort) -> Timed:
    """A step at one point, from fits of so many epochs that setting up does not weigh.

    Every contender is compared after its first steps.
    """
    p = Problem.random(point.n, point.d, seed=1, lr=1e-3 / max(1, point.d), outputs=point.k)
    epochs = max(STEPS, min(20_000, 2**26 // (p.x.numel() * point.k)))
    training = Training(p.model, nn.MSELoss(), p.x, p.y, p.lr, STEPWISE)
    eager = training.eager_alone(STEPS)
    first = [replace(training.fit_alone(STEPS), name=FIT), eager, *scan(p, STEPS)]
    took = checked(first, expected_outputs(p, STEPS), f"{point}, at epoch {STEPS}")
    steps = {FIT: epochs, "eager": STEPS, JAX: epochs}
    runs = {FIT: training.fit_alone(epochs).run, "eager": eager.run}
    runs |= {one.name: one.run for one in scan(p, epochs)}
    for run in runs.values():
        run()
    bounds = bounds_of(p)
    every = [*runs.values(), *(limit.run for limit, _ in bounds)]
    taken, _ = interleave(every, effort, known=[0.0, took["eager"]])
    seconds = {
        name: Spread.of([s / steps[name] for s in samples])
        for name, samples in zip(runs, taken, strict=False)
    }
    if bounds:
        # Whichever bound takes longer, round by round.
        each = [
            [s * calls for s in samples]
            for samples, (_, calls) in zip(taken[len(runs) :], bounds, strict=True)
        ]
        seconds[LIMIT] = Spread.of([max(together) for together in zip(*each, strict=True)])
    return Timed(point.at, seconds)


def time_batch(batch: int, p: Problem, effort: Effort) -> Timed:
    """A step of a minibatch, from an epoch over rows in random order.

    An epoch over a part of the rows is compared.
    """
    rows = min(len(p.x), 256 * batch)
    part = replace(p, x=p.x[:rows], y=p.y[:rows])
    ours, theirs = minibatches.fit(p, batch), minibatches.eager(part, batch)
    drawn = minibatches.batches(minibatches.order(rows, shuffled=True), batch)
    expected = minibatches.expected_epoch(part, drawn)
    both = [minibatches.fit(part, batch), theirs]
    took = checked(both, expected, f"batches of {batch}, {rows} rows")
    limit = limits.random_rows(p.x)
    runs = [ours.run, theirs.run, *([limit.run] if limit is not None else [])]
    taken, _ = interleave(runs, effort, known=[0.0, took["eager"]])
    steps = [len(p.x) / batch, rows / batch, len(p.x) / batch]
    names = [FIT, "eager", LIMIT]
    return Timed(
        batch,
        {
            name: Spread.of([s / count for s in samples])
            for name, samples, count in zip(names, taken, steps, strict=False)
        },
    )


def time_threads(count: int, point: Point, effort: Effort) -> Timed:
    """A step on so many threads, compared; the limit is one thread's time divided among them."""
    p = Problem.random(point.n, point.d, seed=1, lr=1e-3 / point.d, outputs=point.k)
    alone = Training(p.model, nn.MSELoss(), p.x, p.y, p.lr, STEPWISE).fit_alone(STEPS)

    def on(threads: int) -> Any:
        torch.set_num_threads(threads)
        try:
            return alone.run()
        finally:
            torch.set_num_threads(THREADS)

    runs: list[Callable[[], Any]] = [functools.partial(on, threads) for threads in (count, 1)]
    ours = replace(alone, name=FIT, run=runs[0])
    checked([ours], expected_outputs(p, STEPS), f"{point}, {count} threads, at epoch {STEPS}")
    several, one = interleave(runs, effort)[0]
    seconds = {FIT: Spread.of([s / STEPS for s in several])}
    return Timed(count, {**seconds, LIMIT: Spread.of([s / STEPS / count for s in one])})


def curve(name: str, title: str, axis: str, timed: Sequence[Timed]) -> Curve:
    print(f"{name}, {title}", flush=True)
    return Curve(name, title, axis, [one.at for one in timed], [one.seconds for one in timed])


def measure(quick: bool) -> Iterator[Curve]:
    """All curves."""
    effort = QUICK if quick else EFFORT
    axes = {"rows": "rows n", "columns": "columns d", "outputs": "outputs k"}
    for name, title, points in full_batch_curves(quick):
        yield curve(name, title, axes[name], [time_point(point, effort) for point in points])
    n = 20_000 if quick else 1_000_000
    p = Problem.random(n, 16, seed=1)
    timed = [time_batch(batch, p, effort) for batch in powers(16, 16_384, 32 if quick else 4)]
    yield curve("batch", f"n = {n}, d = 16, shuffled", "rows in a batch", timed)
    small = Point(0, 10_000, 64, 16)
    for point in [small] if quick else [Point(0, 1_000_000, 64), Point(0, 100_000, 64, 16), small]:
        title = f"n = {point.n}, d = {point.d}, k = {point.k}"
        timed = [time_threads(count, point, effort) for count in range(1, THREADS + 1)]
        yield curve("threads", title, "threads", timed)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench/growth.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few points, as a trial")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER", help=str(FOLDER))
    options = parser.parse_args(given)
    described = machine.describe()
    rates = limits.measure_machine(QUICK if options.quick else EFFORT)
    write(list(measure(options.quick)), described, limits.rates_text(rates), options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
