"""What every contender must come to, and how far rounding may carry it from there.

The work is done once more, in float64 and in NumPy, and beside it a bound is carried on what
rounding to float32 may have done to it, to first order in the unit roundoff u:

    residual     dr_i <= u (k_i + |prediction_i| + |y_i|)       k_i: roundings of the prediction
    gradient     dg_j <= 2 s sum_i (|J_ij| dr_i + (c sqrt(n) + 3) u |r_i J_ij| + |r_i| dJ_ij)
    loss         dL   <= s sum_i (2 |r_i| dr_i + (c sqrt(n) + 3) u r_i^2)
    parameter    dp_j <= lr dg_j + 2 u (|p_j| + lr |g_j|)

with s = 1 / n for a mean and 1 for a sum. The n roundings of a sum, in whatever order, are off by
more than c sqrt(n) u sum |terms| with a probability of at most 2 n exp(-c^2 / 2), which is 5e-5 for
c = 7 and a million terms (Higham and Mary, SIAM J. Sci. Comput. 41, 2019, A2815). A step with a
stable rate lengthens no earlier error, so those of the steps add up.

NumPy's einsum is used rather than its BLAS, whose threads would go on spinning beside what follows.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

UNIT_ROUNDOFF = float(np.finfo(np.float32).eps) / 2
SUM_FACTOR = 7.0
ROWS_AT_ONCE = 4096


class DisagreementError(Exception):
    """A contender came to something else; it must not be timed."""


class Outcome(NamedTuple):
    """What a contender came to: a loss, if it has one, and parameters or gradients in a row."""

    loss: float | None
    values: Array


def outcome(loss: Any, *values: Any) -> Outcome:
    """An outcome from tensors, arrays or numbers."""
    rows = [as_float64(value).reshape(-1) for value in values]
    number = None if loss is None else float(as_float64(loss))
    return Outcome(number, np.concatenate(rows))


def as_returned(value: Any) -> Outcome:
    """The outcome of a contender that returns it: the loss, then the rest."""
    return outcome(*value)


def as_float64(value: Any) -> Array:
    """A tensor, array or number as a float64 array."""
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    return np.asarray(value, dtype=np.float64)


@dataclass(frozen=True)
class Expected:
    """An outcome in float64, and by how much a float32 one may differ from it."""

    loss: float | None
    loss_error: float
    values: Array
    errors: Array

    def check(self, got: Outcome) -> None:
        """Compare.

        Raises:
            DisagreementError: the loss or a value is further away than rounding explains.
        """
        if self.loss is not None and (
            got.loss is None or not abs(got.loss - self.loss) <= self.loss_error
        ):
            raise DisagreementError(f"loss {got.loss} is not {self.loss} ± {self.loss_error:.2g}")
        if got.values.shape != self.values.shape:
            raise DisagreementError(f"{got.values.size} values are not {self.values.size}")
        right = np.abs(got.values - self.values) <= self.errors
        if not right.all():
            at = int(np.argmin(right))
            raise DisagreementError(
                f"value {at}: {got.values[at]} is not {self.values[at]} ± {self.errors[at]:.2g}"
            )


class Evaluation(NamedTuple):
    """Some rows of a model: predictions, derivatives by the parameters, roundings of both / u."""

    prediction: Array
    prediction_roundings: Array
    jacobian: Array
    jacobian_roundings: Array | None


class Model(Protocol):
    """A model in float64."""

    rows: int

    def evaluate(self, parameters: Array, rows: slice) -> Evaluation: ...

    def curvatures(self, parameters: Array, residuals: Array) -> tuple[float, float]:
        """Bounds on the eigenvalues of half the second derivative of the sum of squares."""


class Affine:
    """Predictions that are features times parameters.

    Args:
        features: (n, p), or (n, p - 1) with ``intercept``, which adds a column of ones.
        roundings: How many a contender may make in forming a feature.
    """

    def __init__(self, features: NDArray[Any], *, intercept: bool, roundings: int = 0) -> None:
        self.features, self.intercept, self.roundings = features, intercept, roundings
        self.rows = len(features)

    def evaluate(self, parameters: Array, rows: slice) -> Evaluation:
        phi = self.features[rows].astype(np.float64)
        if self.intercept:
            phi = np.hstack([phi, np.ones((len(phi), 1))])
        size = np.abs(phi)
        count = phi.shape[1] + 1 + self.roundings
        terms = count * np.einsum("ij,j->i", size, np.abs(parameters))
        prediction = np.einsum("ij,j->i", phi, parameters)
        return Evaluation(prediction, terms, phi, self.roundings * size if self.roundings else None)

    def curvatures(self, parameters: Array, residuals: Array) -> tuple[float, float]:
        # The largest eigenvalue is at most the sum of all.
        blocks = (self.features[rows].astype(np.float64) for rows in row_blocks(self.rows))
        squares = sum(float(np.einsum("ij,ij->", block, block)) for block in blocks)
        return 0.0, squares + (self.rows if self.intercept else 0)


def row_blocks(rows: int) -> list[slice]:
    """Blocks of rows whose temporaries stay in the caches."""
    return [slice(i, min(i + ROWS_AT_ONCE, rows)) for i in range(0, rows, ROWS_AT_ONCE)]


class LossAndGradient(NamedTuple):
    """In float64, with bounds on what rounding does to them."""

    loss: float
    loss_error: float
    gradient: Array
    gradient_error: Array
    residuals: Array


def evaluate(
    model: Model, y: Array, parameters: Array, *, mean: bool, drift: float = 0.0
) -> LossAndGradient:
    """Loss and gradient, where the parameters of a contender may have drifted by so much."""
    n, u = model.rows, UNIT_ROUNDOFF
    scale = 1 / n if mean else 1.0
    summing = (SUM_FACTOR * np.sqrt(n) + 3) * u
    loss = loss_error = 0.0
    gradient, error = np.zeros_like(parameters), np.zeros_like(parameters)
    residuals = np.empty(n)
    for rows in row_blocks(n):
        prediction, roundings, jacobian, jacobian_roundings = model.evaluate(parameters, rows)
        r = residuals[rows] = prediction - y[rows]
        size = np.abs(r)
        dr = u * (roundings + np.abs(prediction) + np.abs(y[rows]))
        loss += scale * float(np.sum(r * r))
        gradient += 2 * scale * np.einsum("i,ij->j", r, jacobian)
        error += 2 * scale * np.einsum("i,ij->j", dr + summing * size, np.abs(jacobian))
        if jacobian_roundings is not None:
            error += 2 * scale * u * np.einsum("i,ij->j", size, jacobian_roundings)
        if drift:
            dr += drift * np.sqrt(np.einsum("ij,ij->i", jacobian, jacobian))
        loss_error += scale * float(np.sum((2 * size + dr) * dr))
    return LossAndGradient(loss, loss_error + summing * loss, gradient, error, residuals)


def expected_gradient(model: Model, y: Array, parameters: Array, *, mean: bool) -> Expected:
    """The loss and its gradient."""
    there = evaluate(model, y, parameters, mean=mean)
    return Expected(there.loss, there.loss_error, there.gradient, there.gradient_error)


def expected_descent(
    model: Model,
    y: Array,
    start: Array,
    *,
    lr: float,
    mean: bool,
    steps: Collection[int],
) -> dict[int, Expected]:
    """The parameters after so many steps of gradient descent, and the loss before the last of them.

    Raises:
        ValueError: the rate is not stable, so that a step could lengthen an earlier error.
    """
    u, scale = UNIT_ROUNDOFF, 1 / model.rows if mean else 1.0
    parameters, drift = start.copy(), 0.0
    reached: dict[int, Expected] = {}
    last = max(steps)
    for step in range(1, last + 1):
        there = evaluate(model, y, parameters, mean=mean, drift=drift)
        # An affine model's curvature is the same everywhere; the others are looked at ten times.
        if step == 1 or (not isinstance(model, Affine) and step % max(1, last // 10) == 0):
            least, largest = model.curvatures(parameters, there.residuals)
            if least < 0 or lr * 2 * scale * largest > 2:
                raise ValueError(f"lr: {lr} may not be stable at step {step}")
        update = lr * there.gradient
        rounding = lr * there.gradient_error + 2 * u * (np.abs(parameters) + np.abs(update))
        parameters = parameters - update
        drift += float(np.linalg.norm(rounding))
        if step in steps:
            errors = np.full_like(parameters, drift)
            reached[step] = Expected(there.loss, there.loss_error, parameters, errors)
    return reached
