"""A busy neighbour: one spinning process on the same cores, and what it does to each step.

The neighbour sleeps and wakes in turns, so quiet and busy times are measured in the same minute.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from linear import Problem
from linear_steps import step_contenders
from table import Table, digits, time_text
from timing import wait_until_idle

SUITE = "neighbour"
SIZES = ((32, 10), (10_000, 10), (100_000, 64), (1_000_000, 1), (1_000_000, 8))
QUICK_SIZES = ((32, 10), (100_000, 64))
ROUNDS, SECONDS = 4, 0.25
OURS = "gdcore.train_step"
MEAN, TAIL = "the neighbour slows a mean by", "the neighbour slows a 99th percentile by"
SPIN = "while True: pass"


@contextlib.contextmanager
def spinning() -> Iterator[Callable[[bool], None]]:
    """A process that computes where it is told to, and is gone at the end."""
    with subprocess.Popen([sys.executable, "-c", SPIN]) as process:
        os.kill(process.pid, signal.SIGSTOP)

        def busy(now: bool) -> None:
            os.kill(process.pid, signal.SIGCONT if now else signal.SIGSTOP)

        try:
            yield busy
        finally:
            process.kill()


def call_times(run: Callable[[], Any], seconds: float) -> list[float]:
    """Of each call, for so many seconds."""
    wait_until_idle()
    run()
    taken = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        run()
        taken.append(time.perf_counter() - start)
    return taken


def slowed(quiet: list[float], busy: list[float]) -> tuple[float, float]:
    """How many times the mean and the 99th percentile grow."""
    tails = [float(np.percentile(taken, 99)) for taken in (busy, quiet)]
    return float(np.mean(busy) / np.mean(quiet)), tails[0] / tails[1]


def table(quick: bool) -> Table:
    """gdcore's step and eager's, at several sizes."""
    rows = [["case", "gdcore", "mean", "99 %", "eager", "mean", "99 %"]]
    found: dict[str, dict[str, dict[bool, list[float]]]] = {}
    worst = {MEAN: 0.0, TAIL: 0.0}
    with spinning() as neighbour:
        for n, d in QUICK_SIZES if quick else SIZES:
            steps = step_contenders(Problem.random(n, d, seed=n + d), compiled=False)
            runs = {one.name: one.run for one in steps if one.name in (OURS, "eager")}
            taken = found[f"({n}, {d})"] = {name: {False: [], True: []} for name in runs}
            for _ in range(1 if quick else ROUNDS):
                for now in (False, True):
                    neighbour(now)
                    for name, run in runs.items():
                        taken[name][now] += call_times(run, SECONDS)
            neighbour(False)
            cells = [f"({n}, {d})"]
            for name in (OURS, "eager"):
                mean, tail = slowed(*taken[name].values())
                quiet = time_text(float(np.mean(taken[name][False])))
                cells += [quiet, f"{digits(mean)} x", f"{digits(tail)} x"]
                if name == OURS:
                    worst = {MEAN: max(worst[MEAN], mean), TAIL: max(worst[TAIL], tail)}
            rows.append(cells)
    heading = "One spinning process beside: a step without it, how many times that grows with it."
    samples = {
        case: {
            name: {"quiet": times[False], "busy": times[True]} for name, times in by_name.items()
        }
        for case, by_name in found.items()
    }
    return Table(SUITE, heading, rows, [], worst, samples)
