"""A busy neighbour: one spinning process on the same cores, and what it does to each call.

The neighbour sleeps and wakes in turns, so quiet and busy times are measured in the same minute.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from case import Contender
from linear import Problem
from linear_steps import gradient_contenders, step_contenders
from loops import STEPWISE, Training
from minibatches import eager as minibatches_eager
from minibatches import fit as minibatches_fit
from optim import KINDS, MILLION, Work, contenders_of
from table import Table, digits, time_text
from timing import wait_until_idle

SUITE = "neighbour"
STEPS = ((32, 10), (10_000, 10), (100_000, 64), (1_000_000, 1), (1_000_000, 8))
QUICK_STEPS = ((32, 10), (100_000, 64))
FITS = {(256, 64): 50, (100_000, 64): 5}
ROUNDS, SECONDS = 3, 0.12
MEAN, TAIL = "the neighbour slows a mean by", "the neighbour slows a 99th percentile by"
SPIN = "while True: pass"

Run = Callable[[], Any]


class Pair(NamedTuple):
    """The same work by gdcore and as everybody writes it."""

    ours: Run
    eager: Run


def pair(contenders: Sequence[Contender]) -> Pair:
    """gdcore's comes first."""
    return Pair(contenders[0].run, next(one.run for one in contenders if one.name == "eager"))


def works(quick: bool) -> Iterator[tuple[str, Pair]]:
    """Steps, whole fits, and each part by itself; each is made when its turn comes."""
    for n, d in QUICK_STEPS if quick else STEPS:
        steps = step_contenders(Problem.random(n, d, seed=n + d), compiled=False)
        yield f"({n}, {d}), train_step", pair(steps)
    if quick:
        return
    for (n, d), epochs in FITS.items():
        p = Problem.random(n, d, seed=n + d)
        training = Training(p.model, nn.MSELoss(), p.x, p.y, p.lr, STEPWISE)
        both = training.fit_alone(epochs), training.eager_alone(epochs)
        yield f"({n}, {d}), fit of {epochs} epochs", Pair(*(one.run for one in both))
    p = Problem.random(10_000, 16, seed=0)
    both = minibatches_fit(p, 64), minibatches_eager(p, 64)
    yield "64 of (10000, 16), an epoch", Pair(*(one.run for one in both))
    yield "(32, 10), loss and gradients", pair(gradient_contenders(Problem.random(32, 10, seed=1)))
    tensors = Work.random([MILLION] * 4, KINDS["SGD, momentum"])
    yield "4 tensors of 1M, SGD, momentum", pair(contenders_of(tensors))


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
    """gdcore's work and eager's."""
    rows = [["case", "gdcore", "mean", "99 %", "eager", "mean", "99 %"]]
    samples: dict[str, dict[str, dict[str, list[float]]]] = {}
    worst = {MEAN: 0.0, TAIL: 0.0}
    with spinning() as neighbour:
        for case, work in works(quick):
            runs = {"gdcore": work.ours, "eager": work.eager}
            taken = samples[case] = {name: {"quiet": [], "busy": []} for name in runs}
            for _ in range(1 if quick else ROUNDS):
                for state in ("quiet", "busy"):
                    neighbour(state == "busy")
                    for name, run in runs.items():
                        taken[name][state] += call_times(run, SECONDS)
            neighbour(False)
            growths = {name: slowed(**times) for name, times in taken.items()}
            cells = [case]
            for name, (mean, tail) in growths.items():
                quiet = time_text(float(np.mean(taken[name]["quiet"])))
                cells += [quiet, f"{digits(mean)} x", f"{digits(tail)} x"]
            rows.append(cells)
            mean, tail = growths["gdcore"]
            worst = {MEAN: max(worst[MEAN], mean), TAIL: max(worst[TAIL], tail)}
    heading = "One spinning process beside: a call without it, how many times that grows with it."
    return Table(SUITE, heading, rows, [], worst, samples)
