"""How time grows with the work: ``python bench/growth.py`` writes the measured part of
``docs/performance.md`` and its pictures. About four minutes; ``--quick`` tries it out.

Every point takes turns with eager PyTorch, with a JAX scan and with the limits, as a case of the
bench does.
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
from agreement_outputs import expected_outputs
from available import JAX
from case import Limit
from growth_page import Curve, write
from linear import Problem
from loops import FIT, STEPWISE, Training
from timing import Effort, Spread, interleave

FOLDER = Path(__file__).parents[1] / "docs"
EFFORT = Effort(sample_seconds=0.005, case_seconds=0.8, least_rounds=3, most_rounds=11)
QUICK = Effort(sample_seconds=0.001, case_seconds=0.0, least_rounds=2, most_rounds=2)
THREADS = torch.get_num_threads()
LIMIT = "limit"
LARGEST_CHECKED = 2**23


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


def check(p: Problem, training: Training) -> None:
    """Three steps come to what they come to in float64.

    Raises:
        DisagreementError: They do not.
    """
    if p.x.numel() * p.y.shape[1] <= LARGEST_CHECKED:
        one = training.fit_alone(3)
        expected_outputs(p, 3).check(one.outcome(one.run()))


def time_point(point: Point, effort: Effort) -> Timed:
    """A step at one point, from fits of so many epochs that setting up does not weigh."""
    p = Problem.random(point.n, point.d, seed=1, lr=1e-3 / max(1, point.d), outputs=point.k)
    work = p.x.numel() * point.k
    epochs, few = max(3, min(20_000, 2**26 // work)), 3
    training = Training(p.model, nn.MSELoss(), p.x, p.y, p.lr, STEPWISE)
    check(p, training)
    start = [parameter.detach().numpy() for parameter in p.model().parameters()]
    scan = jax_peer.scan(jax_peer.linear, start, p.x, p.y, p.lr, epochs)
    steps = {FIT: epochs, "eager": few, JAX: epochs}
    runs = {FIT: training.fit_alone(epochs).run, "eager": training.eager(few, {})}
    runs |= {one.name: one.run for one in scan}
    for run in runs.values():
        run()
    bounds = bounds_of(p)
    taken, _ = interleave([*runs.values(), *(limit.run for limit, _ in bounds)], effort)
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
    """A step of a minibatch, from an epoch over rows in random order."""
    rows = min(len(p.x), 256 * batch)
    part = replace(p, x=p.x[:rows], y=p.y[:rows])
    ours, theirs = minibatches.fit(p, batch), minibatches.eager(part, batch)
    limit = limits.random_rows(p.x)
    runs = [ours.run, theirs.run, *([limit.run] if limit is not None else [])]
    taken, _ = interleave(runs, effort)
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
    """A step on so many threads; the limit is one thread's time divided among them."""
    p = Problem.random(point.n, point.d, seed=1, lr=1e-3 / point.d, outputs=point.k)
    alone = Training(p.model, nn.MSELoss(), p.x, p.y, p.lr, STEPWISE).fit_alone(3)

    def on(threads: int) -> None:
        torch.set_num_threads(threads)
        try:
            alone.run()
        finally:
            torch.set_num_threads(THREADS)

    runs: list[Callable[[], Any]] = [functools.partial(on, threads) for threads in (count, 1)]
    several, one = interleave(runs, effort)[0]
    seconds = {FIT: Spread.of([s / 3 for s in several])}
    return Timed(count, {**seconds, LIMIT: Spread.of([s / 3 / count for s in one])})


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
