"""How far apart two correct versions of a lesson may end, and whether they stay within that.

Let u be the unit roundoff of the dtype, F the features (n rows, p columns; a bias is a column of
ones), X the largest sum of |F| in a row, and m = 1 for a mean, n for a sum. Descent goes from a
start p0 towards the least-squares solution p*, and every step multiplies the distance by at most
g = max |1 - lr k|, k the curvatures (eigenvalues of 2 m/n F'F); g = 1 where the rate is stable. So
for t steps all parameters are below S g^t, S = 2 (|p*| + |p0|), and all predictions and targets
below R g^t, R = max |y| + X S. Whatever the order of its sums, a step is wrong by at most g^t times

    residual     dr = (p + 2) u R
    gradient     dg = 2 m X (dr + n u R)
    parameters   dp = lr dg + 2 u S

and after t of them the parameters are off by e = t g^t sqrt(p) dp (sqrt(p) for largest against
Euclidean length), the predictions by d = g^t dr + X e, and the cost L by
2 sqrt(m L) d + m d^2 + n u L. Two versions are each that near the exact run, so twice that near
each other. In float32 this worst case is loose after many steps, so the same versions also run in
float64, where it is tight: a factor of 1 + 1e-6 in a gradient is seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .agreement import Disagreement, same_lines
from .lesson import Compare, Lines, Run, Settings, Trained, Value, numbers
from .measure import train

Features = Callable[[Settings, Run], Tensor]
Pairs = Iterator[tuple[Any, Any]]  # rows of two versions, None where one has ended

# Starts are zeros, standard normal numbers or near those of the seeds.
LARGEST_START = 5.0


def with_ones(settings: Settings, run: Run) -> Tensor:
    """The features of a line or plane: ones for the bias, and the columns of x."""
    x = settings.x.double().reshape(len(settings.y), -1)
    return torch.cat([torch.ones(len(x), 1, dtype=x.dtype), x], 1)


class Errors(NamedTuple):
    """How far a version may be from exact arithmetic."""

    cost: float
    gradient: float
    parameters: float


class Bound:
    """The bounds above for a lesson's settings."""

    def __init__(
        self, settings: Settings, features: Tensor, reduction: str, in_batches: bool
    ) -> None:
        n, p = features.shape
        y = settings.y.double().reshape(n, 1)
        u = torch.finfo(settings.dtype).eps / 2
        m = n if reduction == "sum" else 1
        largest_row = float(features.abs().sum(1).max())
        solution = torch.linalg.lstsq(features, y, driver="gelsd").solution
        s = 2 * (float(solution.norm()) + LARGEST_START * math.sqrt(p))
        r = float(y.abs().max()) + largest_row * s
        dr = (p + 2) * u * r
        dg = 2 * m * largest_row * (dr + n * u * r)
        dp = settings.lr * dg + 2 * u * s
        if in_batches:  # no batch's curvature is above that of its largest row alone
            curvatures = 2 * features.square().sum(1)
        else:
            curvatures = torch.linalg.eigvalsh(2 * m / n * features.T @ features)
        growth = float((1 - settings.lr * curvatures).abs().max())
        self._log_growth = math.log(max(1.0, growth))
        self._of_residual, self._of_parameters = dr, math.sqrt(p) * dp
        self._of_gradient, self._curvature = math.sqrt(p) * dg, float(curvatures.max())
        self._largest_row, self._m, self._nu = largest_row, m, n * u

    def errors(self, updates: int, cost: float) -> Errors:
        """How far all may be off after a number of updates."""
        if updates * self._log_growth > 300.0:  # past what the squares below can hold
            return Errors(math.inf, math.inf, math.inf)
        growth = math.exp(updates * self._log_growth)
        parameters = updates * growth * self._of_parameters
        d = growth * self._of_residual + self._largest_row * parameters
        return Errors(
            2 * math.sqrt(self._m * cost) * d + self._m * d * d + self._nu * cost,
            self._curvature * parameters + growth * self._of_gradient,
            parameters,
        )


def compare_versions(
    features: Features = with_ones,
    reduction: str = "mean",
    batches: Callable[[Settings], int] | None = None,
    quadratic: bool = True,
) -> Compare:
    """A comparison of two versions within twice the rounding bound, in their dtype and float64.

    Where the cost is not a quadratic of the parameters, a step can lengthen a rounding error.
    It is compared as long as it descends, and in float32 for the first 300 steps.

    Args:
        features: The derivative of the predictions by the parameters, (n, p).
        reduction: Whether the cost is a ``mean`` or a ``sum``.
        batches: How many batches a pass over the data has; ``None`` for the full batch.
        quadratic: Whether the model is linear in its parameters.
    """

    def compare(settings: Settings, reference: Trained, other: Trained) -> Disagreement | None:
        found = between(settings, reference, other)
        if found is None and settings.dtype != torch.float64:
            doubled = settings.to(torch.float64)
            reference = reference._replace(run=train(reference.version, doubled))
            other = other._replace(run=train(other.version, doubled))
            found = between(doubled, reference, other)
        return found

    def between(settings: Settings, reference: Trained, other: Trained) -> Disagreement | None:
        phi = features(settings, reference.run)
        bound = Bound(settings, phi, reduction, batches is not None)
        dtype = str(settings.dtype).removeprefix("torch.")
        where = f"{other.backend} against {reference.backend} in {dtype}"
        for series in dict.fromkeys(row.series for row in [*reference.run.rows, *other.run.rows]):
            pairs: Pairs = itertools.zip_longest(
                reference.run.series(series), other.run.series(series)
            )
            if not quadratic:
                pairs = _descending(pairs, settings.dtype)
            for want, have in pairs:
                at = f"{where}, {series or 'step'} {(want or have).step}"
                if want is None or have is None:
                    found = _one_ended(settings, at, reference, other, (want or have).cost)
                else:
                    errors = bound.errors(want.step + 1, want.cost)
                    found = _compare_values(at, want.values, have.values, errors)
                if found:
                    return found
        return ends(settings, f"{where}, at the end", reference, other, bound)

    def ends(
        settings: Settings, where: str, reference: Trained, other: Trained, bound: Bound
    ) -> Disagreement | None:
        finite = [trained.run for trained in (reference, other) if trained.run.diverged is None]
        if not finite or not quadratic:
            return None
        cost = max(numbers(finite[0].final["cost"]))
        if len(finite) == 1:
            return _one_ended(settings, where, reference, other, cost)
        updates = settings.epochs * (batches(settings) if batches else 1)
        errors = bound.errors(updates, cost)
        return _compare_values(where, reference.run.final, other.run.final, errors)

    return compare


def _descending(pairs: Pairs, dtype: torch.dtype) -> Pairs:
    """The rows as long as the cost falls, of float32 runs the first 300 steps."""
    last = math.inf
    for want, have in pairs:
        row = want or have
        if row.cost > last or (dtype == torch.float32 and row.step >= 300):
            return
        last = row.cost
        yield want, have


def _compare_values(
    where: str, want: Mapping[str, Value], have: Mapping[str, Value], errors: Errors
) -> Disagreement | None:
    if want.keys() != have.keys():
        return Disagreement(where, ", ".join(want), ", ".join(have))
    for name in want:
        tolerance = 2 * getattr(errors, name if name in ("cost", "gradient") else "parameters")
        pairs = itertools.zip_longest(numbers(want[name]), numbers(have[name]), fillvalue=math.nan)
        if not all(abs(a - b) <= tolerance for a, b in pairs):
            at = f"{where}: {name}, tolerance {tolerance:.2g}"
            return Disagreement(at, str(want[name]), str(have[name]))
    return None


def _one_ended(
    settings: Settings, where: str, reference: Trained, other: Trained, cost: float
) -> Disagreement | None:
    """One run goes on with a finite cost where the other has ended."""
    # A cost overflows when its sum does in one version and when its mean does in another, so one
    # of two diverging runs may go on for a while if its cost is within n of the overflow.
    if cost >= torch.finfo(settings.dtype).max / (64 * len(settings.y)):
        return None
    return Disagreement(where, *(f"{t.backend} {_end(t.run)}" for t in (reference, other)))


def _end(run: Run) -> str:
    if run.diverged is not None:
        return f"diverges at step {run.diverged}"
    return f"has {len(run.rows)} rows"


def compare_to_the_character(lines: Lines) -> Compare:
    """A comparison for versions whose arithmetic is exact."""

    def compare(settings: Settings, reference: Trained, other: Trained) -> Disagreement | None:
        found = same_lines(lines(reference.run, settings), lines(other.run, settings))
        if found is None:
            return None
        where = f"{other.backend} against {reference.backend}, {found.where}"
        return replace(found, where=where)

    return compare
