"""linear_mse with few columns and rows too many to be regrouped: a kernel of its own.

Each problem has just more rows than csrc/training/models.cpp regroups (kMaxPackedBytes), of which
the last are no whole group. One instruction set gives the bits of all (test_determinism.py).
"""

import pytest
import torch

from gdcore import _ops

from .layouts import MATRICES, contiguous
from .test_linear_mse import Problem, check_all, make

# From kShortColumns of csrc/kernels/kernels.h to one below kWideColumns, each count of registers.
COLUMNS = (5, 8, 9, 15)
MOST_REGROUPED = 2**24


def too_many_rows(d: int, dtype: torch.dtype, more: int = 1) -> int:
    return MOST_REGROUPED // ((d + 1) * dtype.itemsize) + more


@pytest.fixture(scope="module", params=COLUMNS)
def columns(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


def large(d: int, bias: bool, dtype: torch.dtype, more: int = 1) -> Problem:
    return make(too_many_rows(d, dtype, more), d, 1, bias, dtype)


def test_exact_sums(dtype: torch.dtype, columns: int) -> None:
    bias = columns % 2 == 1
    check_all(large(columns, bias, dtype, 1 if bias else 66), "many short rows")


@pytest.mark.usefixtures("instruction_set")
def test_layouts(dtype: torch.dtype) -> None:
    p = large(7, True, dtype, 4)
    wanted = _ops.linear_mse(*p, "sum", True)
    for name, arrange in MATRICES.items():
        q = p._replace(x=arrange(p.x))
        same = wanted
        if not torch.equal(q.x, p.x):  # one row or column, again and again
            same = _ops.linear_mse(*q._replace(x=contiguous(q.x)), "sum", True)
        for result, other in zip(_ops.linear_mse(*q, "sum", True), same, strict=True):
            assert torch.equal(result, other), name


def test_one_more_row_changes_the_kernel_and_little_else(dtype: torch.dtype) -> None:
    """With the last row's terms zero, both kernels sum the same."""
    p = large(6, False, dtype)
    p.x[-1], p.target[-1] = 0, 0
    fewer = p._replace(x=p.x[:-1], target=p.target[:-1])
    found, wanted = (_ops.linear_mse(*q, "sum", False)[:2] for q in (p, fewer))
    for result, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(result, other)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_not_finite(dtype: torch.dtype, value: float) -> None:
    """In the last row, beside which lanes without a row are computed."""
    p = large(9, True, dtype)
    p.x[-1, 4] = value
    loss, weight, bias, dx = _ops.linear_mse(*p, "mean", True)
    assert not any(sums.isfinite().any() for sums in (loss, weight, bias, dx[-1]))
    assert dx[:-1].isfinite().all()
