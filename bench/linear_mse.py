"""The linear model at seven sizes: gradient, one step, and an epoch of a whole fit."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import limits
from agreement import expected_descent, expected_gradient
from case import Case, Check, Limit, Planned
from compiled import COMPILE, LEFT_OUT
from linear import Problem
from linear_loops import fit_case
from linear_steps import gradient_contenders, step_contenders
from loops import STEPWISE

SUITE = "linear_mse"

# The epochs of a fit; contenders that are not gdcore's do a tenth of them, and at least three, or
# a hundred where a step is short.
EPOCHS = {
    (3, 1): 2000,
    (32, 10): 2000,
    (256, 64): 500,
    (10_000, 10): 200,
    (100_000, 64): 20,
    (1_000_000, 1): 20,
    (1_000_000, 64): 3,
}
# Compiling takes seconds, so only where a step is short.
COMPILED = ((32, 10),)
LARGEST_QUICK = 200_000


def name_of(n: int, d: int, work: str) -> str:
    return f"({n}, {d}), {work}"


def cases(quick: bool) -> Iterator[Planned]:
    """All sizes; a quick run leaves out the largest."""
    for (n, d), epochs in EPOCHS.items():
        if quick and n * d > LARGEST_QUICK:
            continue
        compiled = (n, d) in COMPILED and not quick
        for work, build in (
            ("forward and backward", functools.partial(gradient_case, n, d)),
            ("train_step", functools.partial(step_case, n, d, compiled=compiled)),
            ("fit", functools.partial(epoch_case, n, d, epochs)),
        ):
            yield Planned(SUITE, name_of(n, d, work), build)


@functools.lru_cache(maxsize=1)
def problem(n: int, d: int) -> Problem:
    """The same data for the three cases of a size, and room for those of one size only."""
    return Problem.random(n, d, seed=n + d)


def reading(p: Problem) -> Limit | None:
    """The limit where the data are past the caches: a step reads them once."""
    return limits.read(p.read_bytes) if limits.past_cache(p.read_bytes) else None


def gradient_case(n: int, d: int) -> Case:
    p = problem(n, d)
    contenders = gradient_contenders(p)
    expected = expected_gradient(p.affine(), p.targets(), p.flat_start(), mean=True)
    checks = [Check(contenders, 1, expected, "after one call")]
    return Case(contenders, checks, "call", limit=reading(p), work=p.read_bytes)


def step_case(n: int, d: int, *, compiled: bool) -> Case:
    p = problem(n, d)
    contenders, steps = step_contenders(p, compiled=compiled), (1, 2)
    arrays = (p.affine(), p.targets(), p.flat_start())
    expected = expected_descent(*arrays, lr=p.lr, mean=True, steps=steps)
    checks = [Check(contenders, count, expected[count], f"at step {count}") for count in steps]
    missing = {} if compiled or (n, d) not in COMPILED else {COMPILE: LEFT_OUT}
    return Case(contenders, checks, "step", limit=reading(p), work=p.read_bytes, missing=missing)


def epoch_case(n: int, d: int, epochs: int) -> Case:
    """Every step passes over the data, so that reading them is the limit of each."""
    p = problem(n, d)
    # Model and optimizer are made in every call: where a step is short, over enough of them.
    few = max(100 if n * d <= LARGEST_QUICK else 3, epochs // 10)
    limit, work = reading(p), p.read_bytes
    return fit_case(p, epochs, options=STEPWISE, unit="epoch", limit=limit, work=work, few=few)
