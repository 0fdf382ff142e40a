"""The figures that gdcore is to reach, beside what this run measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import lessons
import linear_mse
import loss_steps
import optim
import small_models
from lesson_line import NN_LOOP, SEED_LOOP
from loops import FIT, FIT_ALONE
from memory import share_of_bandwidth
from timing import Measured

Measure = Callable[[Sequence[Measured], float], float | None]


@dataclass(frozen=True)
class Goal:
    """A figure to reach.

    Args:
        what: In words.
        suite: Where it is measured.
        case: The case, or None for all of the suite.
        bound: What it must be at least, or for a time at most.
        unit: ``x`` for a ratio, ``us`` for a time, ``%`` for a share.
        measure: From the measured cases and the read bandwidth.
    """

    what: str
    suite: str
    case: str | None
    bound: float
    unit: str
    measure: Measure

    @property
    def at_most(self) -> bool:
        return self.unit == "us"


@dataclass(frozen=True)
class Result:
    """A goal and what was measured; None where its case was not run, or fits the caches."""

    goal: Goal
    measured: float | None

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        if self.goal.at_most:
            return self.measured <= self.goal.bound
        return self.measured >= self.goal.bound


def ratio_to(contender: str) -> Measure:
    return lambda measured, _: measured[0].row(contender).ratio.median


def microseconds(measured: Sequence[Measured], _: float) -> float:
    return measured[0].rows[0].seconds.median * 1e6


def percent_of_bandwidth(measured: Sequence[Measured], bandwidth: float) -> float | None:
    share = share_of_bandwidth(measured[0], measured[0].rows[0], bandwidth)
    return None if share is None else 100 * share


def over(which: str, contender: str, fused: str) -> Measure:
    """The geometric mean or the least of a contender's time over that of one of gdcore's."""
    return lambda measured, _: getattr(small_models.summary_of(measured, contender, fused), which)


def lesson(what: str, name: str, bound: float, measure: Measure) -> Goal:
    return Goal(what, lessons.SUITE, name, bound, "x", measure)


def linear(what: str, size: tuple[int, int], work: str, bound: float, unit: str) -> Goal:
    measures: dict[str, Measure] = {
        "x": ratio_to("eager"),
        "us": microseconds,
        "%": percent_of_bandwidth,
    }
    case = linear_mse.name_of(*size, work)
    return Goal(what, linear_mse.SUITE, case, bound, unit, measures[unit])


def small(what: str, bound: float, which: str, fused: str) -> Goal:
    return Goal(what, small_models.SUITE, None, bound, "x", over(which, "eager", fused))


def parts(what: str, case: str, bound: float) -> Goal:
    return Goal(f"(32, 10), {what}, against eager", loss_steps.SUITE, case, bound, "x", to_eager)


def to_eager(measured: Sequence[Measured], _: float) -> float:
    """Against the fastest of PyTorch's own: plain, ``foreach`` or ``fused``."""
    rows = [row for row in measured[0].rows if row.contender.startswith("eager")]
    return min(row.ratio.median for row in rows)


def better_of_torch(measured: Sequence[Measured], _: float) -> float:
    rows = [row for row in measured[0].rows if row.contender.startswith("torch.optim")]
    return min(row.ratio.median for row in rows)


def step(kind: str, tensors: str, bound: float) -> Goal:
    what = f"optim, {kind}, {tensors}: step against the better of torch's"
    return Goal(what, optim.SUITE, f"{tensors}, {kind}", bound, "x", better_of_torch)


LINE = "linear_regression, fit against the seed's loop"
PLANES = "small random models, fit against the eager loop"
LARGE, LONG, MIDDLE = (1_000_000, 64), (1_000_000, 1), (32, 10)

GOALS = [
    lesson(LINE, "linear_regression", 500, ratio_to(SEED_LOOP)),
    lesson(
        f"{LINE}, the call alone", "linear_regression", 500, over("least", SEED_LOOP, FIT_ALONE)
    ),
    lesson("sine_torch, fit against the nn + SGD loop", "sine_torch", 30, ratio_to(NN_LOOP)),
    lesson("legendre, fit against the nn + SGD loop", "legendre", 30, ratio_to(NN_LOOP)),
    linear("(32, 10), train_step", MIDDLE, "train_step", 8, "us"),
    linear("(1000000, 64), a full batch step in fit against eager", LARGE, "fit", 4, "x"),
    linear("(1000000, 64), its share of the read bandwidth", LARGE, "fit", 70, "%"),
    linear("(1000000, 64), train_step against eager", LARGE, "train_step", 4, "x"),
    linear("(1000000, 64), train_step, share of the read bandwidth", LARGE, "train_step", 70, "%"),
    linear("(1000000, 1), a full batch step in fit against eager", LONG, "fit", 15, "x"),
    linear("(1000000, 1), train_step against eager", LONG, "train_step", 15, "x"),
    parts("linear_mse_loss, forward and backward", loss_steps.GRADIENT, 1.5),
    parts("loss, zero_grad, backward and step", loss_steps.STEP, 1.6),
    step("SGD, plain", "2 small tensors", 3),
    step("SGD, momentum", "100 tensors of 1 024", 1.5),
    step("SGD, momentum", "4 tensors of 4M", 1),
    step("RMSprop", "2 small tensors", 3),
    step("RMSprop", "100 tensors of 1 024", 2),
    step("RMSprop", "4 tensors of 4M", 1),
    step("Adam", "2 small tensors", 2.5),
    step("Adam", "100 tensors of 1 024", 1.3),
    step("Adam", "4 tensors of 4M", 1),
    small(f"{PLANES}: geometric mean", 400, "geometric_mean", FIT),
    small(f"{PLANES}: least", 150, "least", FIT),
    small(f"{PLANES}, the call alone: geometric mean", 400, "geometric_mean", FIT_ALONE),
    small(f"{PLANES}, the call alone: least", 150, "least", FIT_ALONE),
]


def wanted(suite: str, case: str) -> bool:
    """Whether a goal is measured by a case."""
    return any(goal.suite == suite and goal.case in (None, case) for goal in GOALS)


def results(measured: Sequence[Measured], bandwidth: float) -> list[Result]:
    """Every goal, with what was measured for it."""
    found = []
    for goal in GOALS:
        cases = [m for m in measured if m.suite == goal.suite and goal.case in (None, m.name)]
        found.append(Result(goal, goal.measure(cases, bandwidth) if cases else None))
    return found
