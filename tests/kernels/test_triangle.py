"""The triangular factor of rows: its Gram matrix is that of the rows, whatever their sizes."""

import pytest
import torch
from torch import Tensor

from gdcore import _ops

SIZES = [1, 2, 127, 128, 129, 256, 500]
WIDTHS = [1, 2, 3, 4, 5, 6, 8, 9, 33, 66]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def factor_of(*parts: Tensor | None, weight: Tensor | None = None) -> Tensor:
    width = sum(1 if part is None else part.shape[1] for part in parts)
    r = torch.zeros(width, width, dtype=torch.float64)
    _ops.triangle(parts, weight, r)
    return r


def expect_factor(r: Tensor, rows: Tensor) -> None:
    """The rows are Q R of an orthogonal Q. Householder's column j is off by at most 4 ε for each
    reflection and pass over the rows' sums, relative to the column's norm (Higham, theorem 19.4):
    so are the entries of RᵀR, relative to the norms of their two columns.
    """
    assert torch.equal(r, r.triu())
    norms = torch.linalg.vector_norm(rows, dim=0)
    scaled, r = rows / norms, r / norms
    blocks = -(-len(rows) // 128)
    allowed = 4 * torch.finfo(torch.float64).eps * (rows.shape[1] * (blocks + 1) + 16)
    assert (r.T @ r - scaled.T @ scaled).abs().max() <= allowed


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("n", SIZES)
def test_random_rows(n: int, columns: int, instruction_set: str) -> None:
    rows = random(n, columns)
    expect_factor(factor_of(rows), rows)


def test_bits_are_those_of_every_instruction_set(instruction_set: str) -> None:
    rows = random(300, 11)
    mine = factor_of(rows)
    before = _ops.active_instruction_set()
    _ops.choose_instruction_set("baseline")
    expected = factor_of(rows)
    _ops.choose_instruction_set(before)
    assert torch.equal(mine, expected)


def test_columns_are_read_where_they_lie(dtype: torch.dtype) -> None:
    """Of either dtype, with any strides, beside a column of ones, under weights; and rows under
    others that have been factorised, in blocks.
    """
    x, y = random(5, 200).to(dtype).T, random(400, 2, seed=1)[::2]
    weight = random(200, seed=2).abs()
    rows = torch.cat((x.double(), torch.ones(200, 1), y), 1) * weight.sqrt().unsqueeze(1)
    whole = factor_of(x, None, y, weight=weight)
    expect_factor(whole, rows.double())
    pieces = torch.zeros_like(whole)
    for piece in (slice(0, 128), slice(128, 200)):
        _ops.triangle((x[piece], None, y[piece]), weight[piece], pieces)
    assert torch.equal(pieces, whole)


@pytest.mark.parametrize("exponent", [-1000, -530, 530, 1000])
def test_squares_past_the_numbers(exponent: int) -> None:
    """A column of another size is that column times its size."""
    rows, size = random(100, 7), 2.0**exponent
    scale = torch.tensor([1.0, size, 1.0, size, size, 1.0, size], dtype=torch.float64)
    expect_factor(factor_of(rows * scale) / scale, rows)


def test_columns_that_depend_on_each_other() -> None:
    one = random(100, 1)
    rows = torch.cat((torch.zeros(100, 1), one, 2 * one, random(100, 6, seed=1)), 1)
    r = factor_of(rows)
    assert torch.equal(r[:, 0], torch.zeros(9))
    expect_factor(r[1:, 1:], rows[:, 1:])
    assert r[2, 2].abs() <= 1e-14 * r[1, 1].abs()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", [1, 7])
def test_what_is_not_finite(value: float, column: int) -> None:
    rows = random(100, 9)
    rows[70, column] = value
    r = factor_of(rows)
    assert not r[:, column].isfinite().all()
    _ops.scale_finite(r, 2.0)
    assert r.isnan().all()


def test_what_does_not_fit() -> None:
    r = torch.zeros(3, 3, dtype=torch.float64)
    for parts, weight in (
        ((random(5, 2), random(4, 1)), None),
        ((random(5, 2),), None),
        ((random(5),), None),
        ((random(5, 3),), random(4)),
        ((None, None, None), None),
    ):
        with pytest.raises(ValueError, match="expected"):
            _ops.triangle(parts, weight, r)
    assert not r.any()
