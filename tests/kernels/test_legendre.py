"""legendre_mse and legendre_p3 against the exact formulas: every size and layout.

How far they may be off (rounding.py counts the roundings): operation by operation as the kernels
go, u = c + d x, u², P₃ = u (5⁄2 u² - 3⁄2), P₃′ = 15⁄2 u² - 3⁄2; sums over rows as `total` says.
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from gdcore import _ops

from .layouts import MATRICES, VECTORS, Layout, contiguous
from .rounding import Bounded, bounded, check
from .sizes import LANES, around_a_chunk, around_lanes

NAMES = ("loss", "a", "b", "c", "d")


class Problem(NamedTuple):
    x: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor
    target: Tensor


def make(n: int, dtype: torch.dtype) -> Problem:
    """Predictions between -2 and 2, targets below: no gradient is near zero by cancelling."""
    generator = torch.Generator().manual_seed(n)
    x = torch.empty(n, dtype=dtype).uniform_(-1, 1, generator=generator)
    target = torch.empty(n, dtype=dtype).uniform_(-4, -3, generator=generator)
    a, b, c, d = torch.tensor([0.2, -0.7, 0.3, 0.8], dtype=dtype).unbind()
    return Problem(x, a, b, c, d, target)


def shifted(square: Bounded, factor: float) -> Bounded:
    """factor · square - 3⁄2."""
    three_halves = np.array(1.5, np.longdouble)
    return square * factor - Bounded(three_halves, np.zeros(()), square.unit)


def exact_sums(p: Problem) -> tuple[Bounded, ...]:
    x, a, b, c, d, target = map(bounded, p)
    u = d * x + c
    square = u * u
    p3 = u * shifted(square, 2.5)
    residual = b * p3 + a - target
    slope = residual * shifted(square, 7.5)
    return (
        (residual * residual).total(),
        residual.total(),
        (residual * p3).total(),
        slope.total() * b,
        (slope * x).total() * b,
    )


def check_all(p: Problem, what: str) -> None:
    exact = exact_sums(p)
    for reduction, divisor in (("mean", len(p.x)), ("sum", 1)):
        results = _ops.legendre_mse(*p, reduction)
        for name, result, sums in zip(NAMES, results, exact, strict=True):
            wanted = sums.result(1 if name == "loss" else 2, divisor)
            check(result, wanted, f"{name} of {what}, {reduction}")


@pytest.mark.usefixtures("instruction_set")
def test_mse_sizes(dtype: torch.dtype) -> None:
    for n in around_lanes(dtype) + around_a_chunk(4):
        check_all(make(n, dtype), f"{n} points")


@pytest.mark.parametrize("layout", VECTORS)
@pytest.mark.parametrize("target_layout", VECTORS)
@pytest.mark.usefixtures("instruction_set")
def test_mse_layouts(dtype: torch.dtype, layout: str, target_layout: str) -> None:
    p = make(2 * LANES[dtype] + 1, dtype)
    p = p._replace(x=VECTORS[layout](p.x), target=VECTORS[target_layout](p.target))
    check_all(p, f"x {layout}, target {target_layout}")
    same = Problem(*map(contiguous, p))
    for result, other in zip(
        _ops.legendre_mse(*p, "sum"), _ops.legendre_mse(*same, "sum"), strict=True
    ):
        assert torch.equal(result, other)


@pytest.mark.usefixtures("instruction_set")
def test_mse_parameters_of_one_element(dtype: torch.dtype) -> None:
    p = make(5, dtype)
    q = Problem(p.x, p.a[None], p.b[None], p.c[None], p.d[None], p.target)
    for result, other in zip(
        _ops.legendre_mse(*q, "sum"), _ops.legendre_mse(*p, "sum"), strict=True
    ):
        assert torch.equal(result, other.view_as(result))


@pytest.mark.usefixtures("instruction_set")
def test_mse_no_points(dtype: torch.dtype) -> None:
    for reduction, value in (("mean", torch.nan), ("sum", 0.0)):
        loss, *gradients = _ops.legendre_mse(*make(0, dtype), reduction)
        assert torch.allclose(loss, torch.tensor(value, dtype=dtype), equal_nan=True)
        assert all(torch.equal(g, torch.zeros((), dtype=dtype)) for g in gradients)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", ["x", "a", "b", "c", "d", "target"])
@pytest.mark.usefixtures("instruction_set")
def test_mse_not_finite(dtype: torch.dtype, place: str, value: float) -> None:
    p = make(LANES[dtype] + 3, dtype)
    getattr(p, place).view(-1)[-1] = value
    for result in _ops.legendre_mse(*p, "mean"):
        assert not result.isfinite()


def check_p3(x: Tensor, grad: Tensor, what: str) -> None:
    square = bounded(x) * bounded(x)
    check(_ops.legendre_p3(x), bounded(x) * shifted(square, 2.5), f"value, {what}")
    slope = bounded(grad) * shifted(square, 7.5)
    check(_ops.legendre_p3_backward(grad, x), slope, f"gradient, {what}")


def random(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.usefixtures("instruction_set")
def test_p3_sizes(dtype: torch.dtype) -> None:
    # The last is shared among threads in chunks of 2¹⁵.
    for n in [0, *around_lanes(dtype), 2**17 + 1]:
        check_p3(random(dtype, n), random(dtype, n).flip(0), f"{n} elements")


@pytest.mark.parametrize("layout", MATRICES.values(), ids=MATRICES)
@pytest.mark.usefixtures("instruction_set")
def test_p3_layouts(dtype: torch.dtype, layout: Layout) -> None:
    x = layout(random(dtype, 5, 7))
    for other in MATRICES.values():
        check_p3(x, other(random(dtype, 5, 7).flip(0)), layout.__name__)


@pytest.mark.usefixtures("instruction_set")
def test_p3_shapes(dtype: torch.dtype) -> None:
    for shape in ((), (1,), (2, 3, 5), (0, 4)):
        check_p3(random(dtype, *shape), random(dtype, *shape), f"shape {shape}")
    three = random(dtype, 2, 3, 5).permute(2, 0, 1)
    check_p3(three, three, "permuted")


@pytest.mark.usefixtures("instruction_set")
def test_p3_known_values(dtype: torch.dtype) -> None:
    """P₃(0), P₃(1), P₃(-1), P₃(2) and P₃′ there need no rounding."""
    x = torch.tensor([0.0, 1.0, -1.0, 2.0], dtype=dtype)
    assert _ops.legendre_p3(x).tolist() == [0.0, 1.0, -1.0, 17.0]
    assert _ops.legendre_p3_backward(torch.ones_like(x), x).tolist() == [-1.5, 6.0, 6.0, 28.5]
