"""Rank and optimum of columns many digits apart, of dependent columns, and of both together."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gdcore
from gdcore._insight import design as _design

from ..devices import NOT_EMULATED
from .least_squares import EPS, flat

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]


def found_for(x: Tensor, y: Tensor) -> tuple[Tensor, gdcore.Curvature]:
    """The start and the curvature of y = Φ w."""
    model = nn.Linear(x.shape[1], 1, bias=False, dtype=torch.float64)
    return model.weight.detach()[0].cpu().clone(), gdcore.curvature(model, nn.MSELoss(), (x, y))


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("columns", [2, 100, 1150, 4096])
def test_a_condition_of_1e12_is_no_dependence_at_any_size(columns: int) -> None:
    """Two rows of many columns alike, whose singular values are 12 digits apart."""
    q, _ = torch.linalg.qr(randn(columns, 2))
    rows = q.T * torch.tensor([[1.0], [1e-12]], dtype=torch.float64)
    _, found = found_for(rows, randn(2, 1))
    assert found.rank == 2
    # Rounding of 1 in the rows, of 1e-16 each, is 2 ε √columns / 1e-12 of the smallest.
    off = math.sqrt(found.condition_number) / 1e12 - 1
    assert abs(off) < 2 * EPS * math.sqrt(columns) / 1e-12


def test_what_rounding_leaves_of_zero_is_below_1e_12_for_any_number_of_rows_and_columns() -> None:
    for columns in (1, 64, 1126, 4096):
        for rows in (1, 10**5, 10**9):
            assert _design._noise(columns, rows) < 1e-12


@pytest.mark.parametrize("kind", ["twice", "sums", "neighbours", "one number"])
@pytest.mark.parametrize(
    ("rows", "columns"), [(5, 8), (50, 1), (1000, 30), (70_000, 33), (60, 50), (400, 120)]
)
def test_dependent_columns_are_recognised(kind: str, rows: int, columns: int) -> None:
    x = randn(rows, columns)
    if kind == "twice":
        x, rank = torch.cat([x, x], 1), columns
    elif kind == "sums":
        x, rank = torch.cat([x, x @ randn(columns, columns)], 1), columns
    elif kind == "neighbours":
        x, rank = torch.cat([x, x + x.roll(1, 1)], 1), columns
    else:
        x, rank = torch.cat([torch.full_like(x, 1.1), x], 1), columns + 1
    _, found = found_for(x, randn(rows, 1))
    assert found.rank == min(rank, rows)


@pytest.mark.parametrize("columns", [3, 40, 150])
@pytest.mark.parametrize("digits", [12, 18])
def test_columns_many_digits_apart(columns: int, digits: int) -> None:
    """Against the same columns at one length, of which every figure follows."""
    scale = torch.logspace(0, -digits, columns, dtype=torch.float64)
    even, y = randn(columns + 50, columns), randn(columns + 50, 1)
    _, found = found_for(even * scale, y)
    best, *_ = np.linalg.lstsq(even.cpu().numpy(), y.cpu().numpy())
    assert found.rank == columns
    optimum = flat(found.optimum) * scale.cpu().numpy()
    # Condition of at most 100: (rows + columns) ε times that, and its square for the residual.
    bound = 2000 * (2 * columns + 50) * EPS
    assert np.abs(optimum - best[:, 0]).max() < bound * np.abs(best).max()
    left = float(((even.cpu().numpy() @ best - y.cpu().numpy()) ** 2).mean())
    assert abs(found.optimal_loss / left - 1) < bound
    # Its smallest singular value is one over the largest of its inverse.
    inverse = np.linalg.pinv(even.cpu().numpy()) / scale.cpu().numpy()[:, None]
    left_vectors, sizes, _ = np.linalg.svd(inverse, full_matrices=False)
    expected = 2 / (columns + 50) / sizes[0] ** 2
    assert abs(found.smallest_curvature / expected - 1) < bound
    slow = flat(found.slowest_direction)
    assert abs(abs(float(slow @ left_vectors[:, 0])) - 1) < bound
    assert np.sign(slow[np.abs(slow).argmax()]) == 1


def test_epochs_to_what_rounding_hides_never_come() -> None:
    """Half of the loss is in a direction of a curvature of 1e-36 of the other."""
    x = torch.diag(torch.tensor([1.0, 1e-18], dtype=torch.float64))
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    found = gdcore.curvature(model, nn.MSELoss(), (x, torch.ones(2, 1, dtype=torch.float64)))
    optimizer = torch.optim.SGD(model.parameters(), lr=found.best_lr / 2)
    assert found.optimal_loss == 0.0
    assert found.epochs_to(0.6, optimizer) == 1
    assert found.epochs_to(0.4, optimizer) == math.inf


@pytest.mark.parametrize("small", [1.0, 1e-6, 1e-12])
@pytest.mark.parametrize("large", [1.0, 1e5])
def test_the_nearest_optimum_leaves_alone_what_the_data_do_not_determine(
    small: float, large: float
) -> None:
    """Columns that are the same, in three lengths, and one of zeros, shuffled among others."""
    a, b, c, d = randn(4, 30, 1)
    zero = torch.zeros_like(a)
    x = torch.cat([small * c, a, zero, large * b, a, small * c, large * b, a, small * d], 1)
    y = randn(30, 1)
    start, found = found_for(x, y)
    optimum = found.optimum["weight"][0]
    assert found.rank == 4
    assert "nearest to the start" in " ".join(str(found).split())
    moved = optimum - start
    assert abs(moved[2]) < EPS
    for same in ([0, 5], [1, 4, 7], [3, 6]):
        for i, j in pairwise(same):
            # Rounding of the optimum's own size, through a condition of some 10.
            bound = 1000 * EPS * float(optimum[same].abs().max())
            assert abs(float(moved[i] - moved[j])) < bound
    q, _ = np.linalg.qr(torch.cat([a, b, c, d], 1).cpu().numpy())
    best = q @ (q.T @ y.cpu().numpy()[:, 0])
    assert np.abs((x.cpu() @ optimum).numpy() - best).max() < 1000 * EPS * large


def test_a_sum_beside_a_column_of_another_length() -> None:
    """What the loss does not see is (1, 1, -1), of columns that are six digits apart."""
    a, c = randn(2, 40, 1)
    x, y = torch.cat([a, 1e-6 * c, a + 1e-6 * c, 1e-9 * randn(40, 1)], 1), randn(40, 1)
    start, found = found_for(x, y)
    moved = found.optimum["weight"][0] - start
    assert found.rank == 3
    # Rounding of the sum itself is 1e-16 beside 1e-6, and a step is 1e6 and more.
    size = float(moved[:3].abs().max())
    assert abs(float(moved[0] + moved[1] - moved[2])) < 1e-9 * size


@pytest.mark.parametrize(("rows", "columns"), [(1, 6), (8, 20), (12, 13)])
def test_fewer_rows_than_columns_of_many_lengths(rows: int, columns: int) -> None:
    """Against Φᵀ (Φ Φᵀ)⁻¹ in sixty digits."""
    mpmath = pytest.importorskip("mpmath")
    x = randn(rows, columns) * torch.logspace(3, -5, columns, dtype=torch.float64)
    y = randn(rows, 1)
    start, found = found_for(x, y)
    with mpmath.workdps(60):
        phi, begun = mpmath.matrix(x.tolist()), mpmath.matrix(start.tolist())
        missing = mpmath.matrix(y[:, 0].tolist()) - phi * begun
        step = phi.T * mpmath.lu_solve(phi * phi.T, missing)
        expected = np.array([float(each) for each in begun + step])
        condition = math.sqrt(found.condition_number)
    assert found.rank == rows
    assert found.optimal_loss == 0.0
    # (rows + columns) ε through the condition of Φ; and the start's own rounding.
    bound = (rows + columns) * EPS * condition * np.linalg.norm(expected)
    assert np.abs(flat(found.optimum) - expected).max() < bound + EPS * condition


def test_the_page_says_where_the_nearest_cannot_be_told() -> None:
    """Beside columns of one length that agree to twelve digits, a repeated one is turned."""
    a, c, d = randn(3, 30, 1)
    _, found = found_for(torch.cat([a, a, c, c + 1e-12 * d], 1), randn(30, 1))
    assert found.rank == 3
    page = " ".join(str(found).split())
    assert "which is the nearest to the start cannot be told" in page


@pytest.mark.parametrize("momentum", [-2.0, -1e-9, 1.0, 1.5, math.nan])
@pytest.mark.parametrize("nesterov", [False, True])
def test_a_momentum_that_no_descent_has(momentum: float, nesterov: bool) -> None:
    _, found = found_for(randn(5, 2), randn(5, 1))
    with pytest.raises(ValueError, match="momentum: expected a number from 0 to below 1, got"):
        found.largest_stable_lr(momentum, nesterov)
