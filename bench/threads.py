"""All threads against one: on work that arithmetic bounds, or memory, and on small work."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

import gdcore
from agreement import DisagreementError, Outcome
from case import OURS, Case, Contender, Planned
from linear import Problem
from loops import FIT, STEPWISE, Training

SUITE = "threads"
ONE_THREAD = f"{OURS}, one thread"
THREADS = torch.get_num_threads()

# Arithmetic bounds a curve, and products with many outputs.
CUBIC, LEGENDRE = "cubic, many points", "Legendre, many points"
OUTPUTS = "(100000, 64) to 16 outputs"
COMPRESS = "gdcore.compress, many rows"
ARITHMETIC = (CUBIC, LEGENDRE, OUTPUTS)
POINTS = 2_000_000


def cases(quick: bool) -> Iterator[Planned]:
    points = POINTS // 10 if quick else POINTS
    yield Planned(SUITE, CUBIC, functools.partial(curve_case, points, cubic))
    yield Planned(SUITE, LEGENDRE, functools.partial(curve_case, points, legendre))
    yield Planned(SUITE, OUTPUTS, functools.partial(linear_case, 100_000, 64, 16, 3))
    for n, d, epochs in ((256, 64, 4000), (10_000, 10, 500), (20_000, 10, 250), (100_000, 64, 10)):
        build = functools.partial(linear_case, n, d, 1, epochs)
        yield Planned(SUITE, f"({n}, {d})", build)
    n = 100_000 // 5 if quick else 100_000
    yield Planned(SUITE, COMPRESS, functools.partial(compress_case, n, 64))


def cubic() -> nn.Module:
    """At the same random coefficients each time."""
    torch.manual_seed(0)
    return gdcore.nn.PolynomialRegression(3)


def legendre() -> nn.Module:
    return gdcore.nn.LegendreRegression()


def curve_case(points: int, make: Callable[[], nn.Module]) -> Case:
    x = torch.linspace(-1, 1, points)
    return both(Training(make, nn.MSELoss(), x, torch.sin(x), 1e-3), 10)


def linear_case(n: int, d: int, outputs: int, epochs: int) -> Case:
    p = Problem.random(n, d, seed=n, outputs=outputs)
    return both(Training(p.model, nn.MSELoss(), p.x, p.y, p.lr), epochs)


def both(training: Training, epochs: int) -> Case:
    """They come to the same to the bit, which is checked here.

    Raises:
        DisagreementError: They do not.
    """
    return on_both(replace(training, options=STEPWISE).fit_alone(epochs), FIT, "epoch", epochs)


def compress_case(n: int, d: int) -> Case:
    p = Problem.random(n, d, seed=n)
    compress = Contender("", lambda: (None, *gdcore.compress(p.x, p.y).data))
    return on_both(compress, COMPRESS, "call", 1)


def on_both(work: Contender, name: str, unit: str, units: int) -> Case:
    def on(threads: int) -> Any:
        torch.set_num_threads(threads)
        try:
            return work.run()
        finally:
            torch.set_num_threads(THREADS)

    contenders = [
        replace(work, name=name, run=functools.partial(on, THREADS)),
        replace(work, name=ONE_THREAD, run=functools.partial(on, 1)),
    ]
    outcomes = []
    for one in contenders:
        one.reset()
        outcomes.append(one.outcome(one.run()))
    same_bits(*outcomes)
    return Case(contenders, [], unit, units)


def same_bits(ours: Outcome, other: Outcome) -> None:
    if ours.loss != other.loss or (ours.values != other.values).any():
        raise DisagreementError(f"{ONE_THREAD}: another result than with {THREADS}")
