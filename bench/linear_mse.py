"""The linear model at seven sizes: gradient, one step, and an epoch of a whole fit."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from torch import Tensor

from agreement import expected_descent, expected_gradient
from linear import Problem
from linear_loops import fit_case
from linear_steps import gradient_contenders, step_contenders
from memory import past_cache
from timing import Case, Check, Planned

SUITE = "linear_mse"

# The epochs of a fit, so that the eager loop takes no more than about a quarter of a second.
EPOCHS = {
    (3, 1): 2000,
    (32, 10): 2000,
    (256, 64): 500,
    (10_000, 10): 200,
    (100_000, 64): 20,
    (1_000_000, 1): 20,
    (1_000_000, 64): 3,
}


def name_of(n: int, d: int, work: str) -> str:
    return f"({n}, {d}), {work}"


def cases(quick: bool) -> Iterator[Planned]:
    """All sizes; a quick run fits for a tenth of the epochs."""
    for (n, d), epochs in EPOCHS.items():
        fewer = max(2, epochs // 10) if quick else epochs
        for work, build in (
            ("forward and backward", functools.partial(gradient_case, n, d)),
            ("train_step", functools.partial(step_case, n, d)),
            ("fit", functools.partial(epoch_case, n, d, fewer)),
        ):
            yield Planned(SUITE, name_of(n, d, work), build)


@functools.lru_cache(maxsize=1)
def problem(n: int, d: int) -> Problem:
    """The same data for the three cases of a size, and room for those of one size only."""
    return Problem.random(n, d, seed=n + d)


def probe(p: Problem) -> Tensor | None:
    """The data themselves, where they are past the caches."""
    return p.x if past_cache(p.read_bytes) else None


def gradient_case(n: int, d: int) -> Case:
    p = problem(n, d)
    contenders = gradient_contenders(p)
    expected = expected_gradient(p.affine(), p.targets(), p.flat_start(), mean=True)
    checks = [Check(contenders, 1, expected, "after one call")]
    return Case(contenders, checks, "call", read_bytes=p.read_bytes, probe=probe(p))


def step_case(n: int, d: int) -> Case:
    p = problem(n, d)
    contenders, steps = step_contenders(p), (1, 2)
    arrays = (p.affine(), p.targets(), p.flat_start())
    expected = expected_descent(*arrays, lr=p.lr, mean=True, steps=steps)
    checks = [Check(contenders, count, expected[count], f"at step {count}") for count in steps]
    return Case(contenders, checks, "step", read_bytes=p.read_bytes, probe=probe(p))


def epoch_case(n: int, d: int, epochs: int) -> Case:
    p = problem(n, d)
    return fit_case(p, epochs, unit="epoch", read_bytes=p.read_bytes, probe=probe(p))
