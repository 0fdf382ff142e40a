"""The figures that gdcore is to reach, beside what a run measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import accuracy
import compression
import insight
import lessons
import limits
import linear_mse
import loss_steps
import memory
import minibatches
import neighbour
import optim
import recognised
import small_models
import stepwise
import threads
from available import JAX, SCIKIT_LEARN
from lesson_line import SEED_LOOP
from loops import FIT, FIT_ALONE
from table import Table
from timing import Measured

Measure = Callable[[Sequence[Measured]], float | None]


@dataclass(frozen=True)
class Goal:
    """A figure to reach.

    Args:
        what: In words.
        suite: Where it is measured.
        case: The case, or how the cases' names begin; for a table, the figure's name.
        bound: What it must be at least or, with ``at_most``, at most.
        unit: ``×``, ``µs``, ``%`` or ``MB``.
        measure: From the cases; None for a figure of a table.
    """

    what: str
    suite: str
    case: str
    bound: float
    unit: str
    measure: Measure | None
    at_most: bool = False

    def wants(self, suite: str, case: str) -> bool:
        return suite == self.suite and case.startswith(self.case)


@dataclass(frozen=True)
class Result:
    """A goal and what was measured; None where its case was not run, or something is missing.

    Args:
        missing: What its case lacked, where that was run.
    """

    goal: Goal
    measured: float | None
    missing: str | None = None

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        if self.goal.at_most:
            return self.measured <= self.goal.bound
        return self.measured >= self.goal.bound


def over(contender: str, ours: str | None = None) -> Measure:
    """The time of a contender over that of one of gdcore's, the first if none is named."""

    def measure(measured: Sequence[Measured]) -> float | None:
        m = measured[0]
        row, base = m.find(contender), m.rows[0] if ours is None else m.find(ours)
        return None if row is None or base is None else row.ratio.median / base.ratio.median

    return measure


def microseconds(measured: Sequence[Measured]) -> float:
    return measured[0].rows[0].seconds.median * 1e6


def percent_of_limit(measured: Sequence[Measured]) -> float | None:
    bound = measured[0].bound
    return None if bound is None else 100 * bound.share.median


def summarised(which: str, contender: str, fused: str = FIT) -> Measure:
    """The geometric mean or the least over cases."""
    return lambda measured: getattr(small_models.summary_of(measured, contender, fused), which)


def better_of_torch(measured: Sequence[Measured]) -> float:
    peers = ("eager", "foreach", "fused")
    return min(row.ratio.median for row in measured[0].rows if row.contender in peers)


def times_the_product(measured: Sequence[Measured]) -> float:
    return 1 / measured[0].row(compression.PRODUCT).ratio.median


def least_over(contender: str) -> Measure:
    return lambda measured: min(m.row(contender).ratio.median for m in measured)


def chosen_well(measured: Sequence[Measured]) -> float:
    """In how many of a hundred cases the chosen method is within 1.5 of the fastest."""
    return (
        100
        * sum(min(row.ratio.median for row in m.rows) >= 1 / 1.5 for m in measured)
        / len(measured)
    )


def lesson(what: str, name: str, bound: float, measure: Measure) -> Goal:
    return Goal(f"{name}: {what}", lessons.SUITE, name, bound, "×", measure)


def linear(what: str, size: tuple[int, int], work: str, bound: float, measure: Measure) -> Goal:
    case = linear_mse.name_of(*size, work)
    return Goal(f"{case}: {what}", linear_mse.SUITE, case, bound, "×", measure)


def step(kind: str, tensors: str, bound: float) -> Goal:
    case = f"{tensors}, {kind}"
    return Goal(f"{case}: the better of torch's", optim.SUITE, case, bound, "×", better_of_torch)


def moving(kind: str) -> Goal:
    case = f"4 tensors of 4M, {kind}"
    return Goal(f"{case}: share of copying", optim.SUITE, case, 85, "%", percent_of_limit)


def per_step(case: str, jax: float, share: float | None) -> list[Goal]:
    found = [Goal(f"{case}: JAX", stepwise.SUITE, case, jax, "×", over(JAX))]
    if share is not None:
        what = f"{case}: share of its limit"
        found.append(Goal(what, stepwise.SUITE, case, share, "%", percent_of_limit))
    return found


def of_limit(batch: int, shuffled: bool, bound: float) -> Goal:
    case = minibatches.name_of(batch, shuffled, minibatches.LARGE)
    return Goal(f"{case}: share", minibatches.SUITE, case, bound, "%", percent_of_limit)


def small(what: str, suite: str, case: str, which: str, bound: float, ours: str = FIT) -> Goal:
    return Goal(f"{what}: {which}", suite, case, bound, "×", summarised(which, "eager", ours))


def figure(what: str, suite: str, name: str, most: float, unit: str) -> Goal:
    """Of a table."""
    return Goal(what, suite, name, most, unit, None, at_most=True)


LINE, SINE, NN_MODEL = "linear_regression", "sine_torch", "gdcore, nn model"
LARGE, LONG, MIDDLE = (1_000_000, 64), (1_000_000, 1), (32, 10)
MEAN, LEAST = "geometric_mean", "least"
MODELS, LAMBDAS = "small models, eager", "small functions, eager"

GOALS = [
    lesson("the seed's loop", LINE, 500, over(SEED_LOOP)),
    lesson("the eager loop", SINE, 30, over("eager")),
    lesson("the nn model, eager", SINE, 800, over("eager", NN_MODEL)),
    lesson("the nn model, JAX", SINE, 40, over(JAX, NN_MODEL)),
    lesson("the eager loop", "legendre", 30, over("eager")),
    Goal(
        "(32, 10), train_step",
        linear_mse.SUITE,
        linear_mse.name_of(*MIDDLE, "train_step"),
        5,
        "µs",
        microseconds,
        at_most=True,
    ),
    linear("eager", LARGE, "fit", 4, over("eager")),
    linear("eager", LARGE, "train_step", 4, over("eager")),
    Goal(
        f"{linear_mse.name_of(*LARGE, 'train_step')}: share of reading",
        linear_mse.SUITE,
        linear_mse.name_of(*LARGE, "train_step"),
        70,
        "%",
        percent_of_limit,
    ),
    linear("eager", LONG, "fit", 15, over("eager")),
    linear("eager", LONG, "train_step", 15, over("eager")),
    *(
        Goal(f"{case}: the better of eager's", loss_steps.SUITE, case, bound, "×", better_of_torch)
        for case, bound in ((loss_steps.GRADIENT, 1.5), (loss_steps.STEP, 1.6))
    ),
    *(
        step(kind, tensors, bound)
        for tensors, bounds in (
            ("2 small tensors", {"SGD, plain": 3, "RMSprop": 3, "Adam": 2.5}),
            ("100 tensors of 1 024", {"SGD, momentum": 1.5, "RMSprop": 2, "Adam": 1.3}),
            ("4 tensors of 4M", {"SGD, momentum": 1, "RMSprop": 1, "Adam": 1}),
        )
        for kind, bound in bounds.items()
    ),
    *(moving(kind) for kind in optim.KINDS),
    small(MODELS, small_models.SUITE, "", MEAN, 1200),
    small(MODELS, small_models.SUITE, "", LEAST, 400),
    small(f"{MODELS}, the call alone", small_models.SUITE, "", MEAN, 1200, FIT_ALONE),
    small(LAMBDAS, recognised.SUITE, "x @ W", MEAN, 150),
    small(LAMBDAS, recognised.SUITE, "x @ W", LEAST, 60),
    *(
        Goal(f"{recognised.LONG_NAME}: {peer}", recognised.SUITE, "(", bound, "×", over(peer))
        for peer, bound in ((JAX, 35), ("eager", 100))
    ),
    Goal("the chosen method within 1.5 ×", recognised.CHOICE, "", 95, "%", chosen_well),
    *per_step(stepwise.name_of(3, 1), 1, None),
    *per_step(stepwise.CUBIC, 6, 40),
    *per_step(stepwise.LEGENDRE, 2, None),
    *per_step(stepwise.name_of(256, 64), 2, 40),
    *per_step(stepwise.name_of(10_000, 10), 4, 40),
    *per_step(stepwise.name_of(100_000, 64), 2.5, 75),
    *per_step(stepwise.name_of(1_000_000, 64), 3, 85),
    *per_step(stepwise.name_of(1_000_000, 1), 3, 85),
    *per_step(stepwise.name_of(1_000_000, 8), 3, 70),
    *per_step(stepwise.name_of(*stepwise.MANY, stepwise.OUTPUTS), 1.5, 60),
    Goal("shuffled: eager", minibatches.SUITE, minibatches.AGAINST_PEERS, 500, "×", over("eager")),
    Goal(
        f"shuffled: {SCIKIT_LEARN}",
        minibatches.SUITE,
        minibatches.AGAINST_PEERS,
        15,
        "×",
        over(SCIKIT_LEARN),
    ),
    of_limit(64, True, 60),
    of_limit(1024, True, 60),
    of_limit(64, False, 80),
    of_limit(1024, False, 80),
    *(
        Goal(f"compress {case}", compression.SUITE, case, 3, "×", times_the_product, at_most=True)
        for case in (compression.name_of(100_000, 64), compression.name_of(1_000_000, 64))
    ),
    figure("distance from float64", accuracy.SUITE, accuracy.FIGURE, 1, "of eager's"),
    figure("fit (1000000, 64) adds", memory.SUITE, memory.FIGURE, 32, "MB"),
    figure("compress (1000000, 64) adds", memory.SUITE, memory.COMPRESS_FIGURE, 64, "MB"),
    # A thousand runs of a thousand epochs in the time of the eager loop's fifty of one.
    Goal(
        f"{insight.SWEEP_NAME}: eager",
        insight.SUITE,
        insight.SWEEP_NAME,
        20_000,
        "×",
        over("eager"),
    ),
    *(
        Goal(f"threads, {case}", threads.SUITE, case, 1.7, "×", over(threads.ONE_THREAD))
        for case in threads.ARITHMETIC
    ),
    Goal(
        "threads, least (5 % of noise)",
        threads.SUITE,
        "",
        0.95,
        "×",
        least_over(threads.ONE_THREAD),
    ),
    figure(neighbour.MEAN, neighbour.SUITE, neighbour.MEAN, 2.5, "×"),
    figure(neighbour.TAIL, neighbour.SUITE, neighbour.TAIL, 10, "×"),
]


def wanted(suite: str, case: str) -> bool:
    """Whether a goal is measured by a case."""
    return any(goal.wants(suite, case) for goal in GOALS)


def results(measured: Sequence[Measured], tables: Sequence[Table]) -> list[Result]:
    """Every goal, with what was measured for it."""
    figures = {(t.suite, name): value for t in tables for name, value in t.figures.items()}
    found = []
    for goal in GOALS:
        if goal.measure is None:
            found.append(Result(goal, figures.get((goal.suite, goal.case))))
            continue
        cases = [m for m in measured if goal.wants(m.suite, m.name)]
        value = goal.measure(cases) if cases else None
        lacking = what_is_missing(goal, cases[0]) if cases and value is None else None
        found.append(Result(goal, value, lacking))
    return found


def what_is_missing(goal: Goal, m: Measured) -> str:
    """Why a case that was run gave no figure."""
    if goal.measure is not percent_of_limit:
        return "; ".join(f"{peer} {why}" for peer, why in m.missing.items())
    return "no C compiler" if limits.library() is None else "the data stay in the caches"
