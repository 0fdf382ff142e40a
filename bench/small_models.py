"""Thirty random small lines and planes, each trained from a new model for 2 000 epochs.

What is not gdcore's is timed for 100 of them and counted twentyfold.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from case import Case, Planned
from linear import Problem
from linear_loops import fit_case
from loops import BY_HAND, FEW, FIT, FIT_ALONE, NUMPY
from timing import Measured

SUITE = "small_models"
PROBLEMS = 30
LARGEST_N, LARGEST_D = 64, 8
EPOCHS = 2000
CONTENDERS = (FIT, "eager", BY_HAND, NUMPY, FIT_ALONE)


def cases(quick: bool, seed: int = 0) -> Iterator[Planned]:
    """Sizes drawn at random; a quick run trains the first three models."""
    draw = random.Random(seed)
    for index in range(PROBLEMS // 10 if quick else PROBLEMS):
        n, d = draw.randint(1, LARGEST_N), draw.randint(1, LARGEST_D)
        build = functools.partial(case, n, d, draw.getrandbits(32))
        yield Planned(SUITE, f"model {index + 1}, ({n}, {d})", build, weight=0.15)


def case(n: int, d: int, seed: int) -> Case:
    return fit_case(Problem.random(n, d, seed), EPOCHS, CONTENDERS, few=FEW)


class Summary(NamedTuple):
    """How many times gdcore's time a contender takes, over all models."""

    contender: str
    geometric_mean: float
    least: float
    least_at: str
    greatest: float


def summarise(measured: Sequence[Measured]) -> list[Summary]:
    """Over the models, of each model's median ratio."""
    return [summary_of(measured, name, FIT) for name in CONTENDERS[1:]]


def summary_of(measured: Sequence[Measured], contender: str, fused: str) -> Summary:
    """How many times the time of one of gdcore's a contender takes."""
    ratios = {m.name: m.row(contender).ratio.median / m.row(fused).ratio.median for m in measured}
    least_at = min(ratios, key=lambda name: ratios[name])
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
    return Summary(contender, mean, ratios[least_at], least_at, max(ratios.values()))
