"""linear_mse against the exact sums: every size, shape, option and layout.

How far it may be off (rounding.py counts the roundings): a prediction sums d products and the bias
in any order, and the target is subtracted last; loss and gradients sum over rows as `over_rows`
says; dx sums over k outputs, each residual first multiplied by a factor that is itself rounded.
"""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from gdcore import _ops

from .layouts import MATRICES, VECTORS, contiguous
from .rounding import RUN_OF_RESIDUALS, Bounded, bounded, check
from .sizes import LANES, around_a_chunk, around_lanes

COLUMNS = (1, 2, 3, 4, 5, 15, 16, 17, 33)
OUTPUTS = (1, 2, 7, 8, 9, 17)
# One for each loop of the kernels: a line, a plane, few columns, many columns, many outputs.
SHAPES = ((1, 1), (3, 1), (5, 2), (17, 1), (33, 7), (3, 9), (17, 17))


class Problem(NamedTuple):
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    target: Tensor


NAMES = ("loss", "dweight", "dbias", "dx")


def make(n: int, d: int, k: int, bias: bool, dtype: torch.dtype) -> Problem:
    """Predictions between -5⁄2 and 5⁄2, targets below: no gradient is near zero by cancelling."""
    generator = torch.Generator().manual_seed(n * 10_000 + d * 100 + k)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype).uniform_(low, high, generator=generator)

    x, weight, offset = uniform(0.5, 1.5, n, d), uniform(-1, 1, k, d) / d, uniform(-1, 1, k)
    return Problem(x, weight, offset if bias else None, uniform(-4, -3, n, k))


def exact_sums(p: Problem, loss_weight: Tensor | None = None) -> dict[str, Bounded]:
    """Σ w r², Σ w r x, Σ w r over rows, Σ w r weight over outputs, not yet divided or doubled."""
    x, weight = bounded(p.x), bounded(p.weight)
    ones = torch.ones(len(p.x), 1, dtype=p.x.dtype)
    if p.bias is None:
        prediction = x.dot(weight.T)
    else:
        inputs = bounded(torch.cat([p.x, ones], 1))
        prediction = inputs.dot(bounded(torch.cat([p.weight, p.bias[:, None]], 1)).T)
    residual = prediction - bounded(p.target)
    slope = residual if loss_weight is None else residual * bounded(loss_weight)
    each = residual.reshape(-1, 1)
    return {
        "loss": slope.reshape(-1, 1).over_rows(each, RUN_OF_RESIDUALS).reshape(),
        "dweight": slope.over_rows(x),
        "dbias": slope.over_rows(bounded(ones)).reshape(-1),
        "dx": slope.dot(weight, len(p.weight) + 3),
    }


def check_all(p: Problem, what: str) -> None:
    """Both reductions, with dx and without: which does not change the other results."""
    exact = exact_sums(p)
    for reduction, divisor in (("mean", p.target.numel()), ("sum", 1)):
        results = dict(zip(NAMES, _ops.linear_mse(*p, reduction, True), strict=True))
        for name in NAMES:
            if name != "dbias" or p.bias is not None:
                wanted = exact[name].result(1 if name == "loss" else 2, divisor)
                check(results[name], wanted, f"{name} of {what}, {reduction}")
        without = dict(zip(NAMES, _ops.linear_mse(*p, reduction, False), strict=True))
        assert without.pop("dx") is None
        if p.bias is None:
            assert without.pop("dbias") is None
        for name, result in without.items():
            assert torch.equal(result, results[name]), f"{name} of {what}, {reduction}"


@pytest.mark.parametrize("k", OUTPUTS)
@pytest.mark.parametrize("d", COLUMNS)
@pytest.mark.usefixtures("instruction_set")
def test_sizes(dtype: torch.dtype, d: int, k: int) -> None:
    for n in around_lanes(dtype):
        check_all(make(n, d, k, True, dtype), f"{n} rows")
        check_all(make(n, d, k, False, dtype), f"{n} rows without bias")


@pytest.mark.parametrize(("d", "k"), SHAPES)
@pytest.mark.usefixtures("instruction_set")
def test_chunks(dtype: torch.dtype, d: int, k: int) -> None:
    for n in around_a_chunk(d * k + k):
        check_all(make(n, d, k, True, dtype), f"{n} rows")


@pytest.mark.parametrize("layout", MATRICES)
@pytest.mark.parametrize(("d", "k"), SHAPES)
@pytest.mark.usefixtures("instruction_set")
def test_layouts(dtype: torch.dtype, d: int, k: int, layout: str) -> None:
    p = make(2 * LANES[dtype] + 1, d, k, True, dtype)
    p = p._replace(x=MATRICES[layout](p.x))
    for target_layout, arrange in MATRICES.items():
        q = p._replace(target=arrange(p.target))
        same = q._replace(x=contiguous(q.x), target=contiguous(q.target))
        results = _ops.linear_mse(*q, "sum", True)
        for result, other in zip(results, _ops.linear_mse(*same, "sum", True), strict=True):
            assert torch.equal(result, other), target_layout
    check_all(q, layout)


@pytest.mark.parametrize("layout", MATRICES)
@pytest.mark.parametrize(("d", "k"), SHAPES)
@pytest.mark.usefixtures("instruction_set")
def test_parameter_layouts(dtype: torch.dtype, d: int, k: int, layout: str) -> None:
    p = make(19, d, k, True, dtype)
    assert p.bias is not None
    for bias_layout, arrange in VECTORS.items():
        p = p._replace(weight=MATRICES[layout](p.weight), bias=arrange(p.bias))
        check_all(p, f"weight {layout}, bias {bias_layout}")


@pytest.mark.parametrize(("d", "k"), SHAPES)
@pytest.mark.usefixtures("instruction_set")
def test_no_rows(dtype: torch.dtype, d: int, k: int) -> None:
    p = make(0, d, k, True, dtype)
    for reduction, loss in (("mean", torch.nan), ("sum", 0.0)):
        results = _ops.linear_mse(*p, reduction, True)
        assert torch.allclose(results[0], torch.tensor(loss, dtype=dtype), equal_nan=True)
        assert torch.equal(results[1], torch.zeros(k, d, dtype=dtype))
        assert torch.equal(results[2], torch.zeros(k, dtype=dtype))
        assert results[3].shape == (0, d)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(("d", "k"), SHAPES)
@pytest.mark.usefixtures("instruction_set")
def test_not_finite(dtype: torch.dtype, d: int, k: int, value: float) -> None:
    """A value that is not finite spoils exactly what PyTorch's formula lets it spoil."""
    p = make(LANES[dtype] + 3, d, k, True, dtype)
    p.x[-1, d // 2] = value
    assert p.bias is not None
    x, weight, bias = (t.clone().requires_grad_() for t in (p.x, p.weight, p.bias))
    loss = torch.nn.functional.mse_loss(torch.nn.functional.linear(x, weight, bias), p.target)
    others = (loss, *torch.autograd.grad(loss, (weight, bias, x)))
    for result, other in zip(_ops.linear_mse(*p, "mean", True), others, strict=True):
        assert torch.equal(result.isfinite(), other.isfinite())
