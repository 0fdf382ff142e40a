"""polynomial_mse against the exact sums: every degree, size and layout.

How far it may be off (rounding.py counts the roundings): Horner's rule rounds a product and a sum
for each degree, r xᵐ is m products, and the sums over rows are as `total` says.
"""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from gdcore import _ops

from .layouts import VECTORS, contiguous
from .rounding import Bounded, bounded, check
from .sizes import LANES, around_a_chunk, around_lanes

# Degrees 1 to 3 have loops of their own.
SOME_DEGREES = (0, 1, 2, 3, 4, 16)


class Problem(NamedTuple):
    x: Tensor
    coefficients: Tensor
    target: Tensor


def make(n: int, degree: int, dtype: torch.dtype) -> Problem:
    """Predictions between -1 and 1, targets below: no gradient is near zero by cancelling."""
    generator = torch.Generator().manual_seed(n * 100 + degree)

    def uniform(low: float, high: float, size: int) -> Tensor:
        return torch.empty(size, dtype=dtype).uniform_(low, high, generator=generator)

    coefficients = uniform(-1, 1, degree + 1) / (degree + 1)
    return Problem(uniform(-0.25, 1, n), coefficients, uniform(-3, -2, n))


def exact_sums(p: Problem, loss_weight: Tensor | None = None) -> tuple[Bounded, list[Bounded]]:
    """Σ w r², and Σ w r xᵐ for every m."""
    x, coefficients = bounded(p.x), bounded(p.coefficients)
    prediction = coefficients[-1]
    for m in reversed(range(len(p.coefficients) - 1)):
        prediction = prediction * x + coefficients[m]
    residual = prediction - bounded(p.target)
    term = slope = residual if loss_weight is None else residual * bounded(loss_weight)
    sums = [slope.total()]
    for _ in p.coefficients[1:]:
        term = term * x
        sums.append(term.total())
    return (slope * residual).total(), sums


def check_all(p: Problem, what: str) -> None:
    squares, sums = exact_sums(p)
    for reduction, divisor in (("mean", len(p.x)), ("sum", 1)):
        loss, gradient = _ops.polynomial_mse(*p, reduction)
        check(loss, squares.result(1, divisor), f"loss of {what}, {reduction}")
        assert gradient.shape == p.coefficients.shape
        for m, (value, exact) in enumerate(zip(gradient, sums, strict=True)):
            check(value, exact.result(2, divisor), f"gradient {m} of {what}, {reduction}")


@pytest.mark.parametrize("degree", range(17))
@pytest.mark.usefixtures("instruction_set")
def test_sizes(dtype: torch.dtype, degree: int) -> None:
    for n in around_lanes(dtype):
        check_all(make(n, degree, dtype), f"{n} points")


@pytest.mark.parametrize("degree", SOME_DEGREES)
@pytest.mark.usefixtures("instruction_set")
def test_chunks(dtype: torch.dtype, degree: int) -> None:
    for n in around_a_chunk(degree + 1):
        check_all(make(n, degree, dtype), f"{n} points")


@pytest.mark.parametrize("layout", VECTORS)
@pytest.mark.parametrize("degree", SOME_DEGREES)
@pytest.mark.usefixtures("instruction_set")
def test_layouts(dtype: torch.dtype, degree: int, layout: str) -> None:
    p = make(2 * LANES[dtype] + 1, degree, dtype)
    for target_layout, arrange in VECTORS.items():
        for coefficients_layout, arrange_coefficients in VECTORS.items():
            q = Problem(
                VECTORS[layout](p.x), arrange_coefficients(p.coefficients), arrange(p.target)
            )
            what = f"x {layout}, target {target_layout}, coefficients {coefficients_layout}"
            check_all(q, what)
            same = Problem(*map(contiguous, q))
            for result, other in zip(
                _ops.polynomial_mse(*q, "sum"), _ops.polynomial_mse(*same, "sum"), strict=True
            ):
                assert torch.equal(result, other), what


@pytest.mark.parametrize("degree", SOME_DEGREES)
@pytest.mark.usefixtures("instruction_set")
def test_no_points(dtype: torch.dtype, degree: int) -> None:
    p = make(0, degree, dtype)
    for reduction, value in (("mean", torch.nan), ("sum", 0.0)):
        loss, gradient = _ops.polynomial_mse(*p, reduction)
        assert torch.allclose(loss, torch.tensor(value, dtype=dtype), equal_nan=True)
        assert torch.equal(gradient, torch.zeros(degree + 1, dtype=dtype))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", ["x", "coefficients", "target"])
@pytest.mark.usefixtures("instruction_set")
def test_not_finite(dtype: torch.dtype, place: str, value: float) -> None:
    p = make(LANES[dtype] + 3, 3, dtype)
    getattr(p, place)[-1] = value
    loss, gradient = _ops.polynomial_mse(*p, "mean")
    assert not loss.isfinite()
    assert not gradient.isfinite().any()
