"""gdcore.functional against gdcore.reference and torch's own functions: losses and gradients."""

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gdcore

from ..devices import NOT_EMULATED
from .plain_torch import absolute_legendre
from .rounding import Formula, assert_within_rounding, compare

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

DTYPES = (torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(), (1,), (33,), (7, 5), (1, 9), (4, 1), (3, 4, 5)])
@pytest.mark.parametrize("oracle", [gdcore.reference.mse_loss, F.mse_loss])
def test_mse_loss(
    oracle: Formula, shape: tuple[int, ...], reduction: str, dtype: torch.dtype
) -> None:
    input, target = torch.randn(2, *shape, dtype=dtype)

    def reduced(formula: Formula) -> Formula:
        return functools.partial(formula, reduction=reduction)

    # r, its square, n sums, the division and the conversion; the gradient has fewer.
    compare(
        reduced(gdcore.functional.mse_loss),
        reduced(oracle),
        reduced(gdcore.reference.mse_loss),
        (input,),
        target,
        input.numel() + 6,
        range(1),
    )


@pytest.mark.parametrize("needs", ["input", "target", "both"])
def test_mse_loss_gradient_in_either_argument(needs: str) -> None:
    input, target = torch.randn(2, 6, dtype=torch.float64)
    input.requires_grad_(needs != "target")
    target.requires_grad_(needs != "input")
    wanted = [t for t in (input, target) if t.requires_grad]
    fused = torch.autograd.grad(gdcore.functional.mse_loss(input, target), wanted)
    plain = torch.autograd.grad(F.mse_loss(input, target), wanted)
    for actual, expected in zip(fused, plain, strict=True):
        assert_within_rounding(actual, expected, expected.abs(), 8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("outputs", [1, 3, 9])
@pytest.mark.parametrize("columns", [1, 5, 16, 17])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_mse_loss(
    bias: bool, columns: int, outputs: int, reduction: str, dtype: torch.dtype
) -> None:
    rows = 37
    x = torch.randn(rows, columns, dtype=dtype)
    weight = torch.randn(outputs, columns, dtype=dtype)
    target = torch.randn(rows, outputs, dtype=dtype)
    inputs = (x, weight, torch.randn(outputs, dtype=dtype)) if bias else (x, weight)

    def full(formula: Formula) -> Formula:
        def call(*tensors: Tensor) -> Tensor:
            *arguments, goal = tensors
            return formula(*arguments, *([] if bias else [None]), goal, reduction)

        return call

    def torch_formula(x: Tensor, weight: Tensor, bias: Any, goal: Tensor, reduction: str) -> Tensor:
        return F.mse_loss(F.linear(x, weight, bias), goal, reduction=reduction)

    # A residual takes d products and d + 1 sums; the loss squares it and sums n k of them.
    roundings = 2 * (2 * columns + 2) + rows * outputs + 8
    for oracle in (gdcore.reference.linear_mse_loss, torch_formula):
        compare(
            full(gdcore.functional.linear_mse_loss),
            full(oracle),
            full(gdcore.reference.linear_mse_loss),
            inputs,
            target,
            roundings,
            range(len(inputs)),
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("degree", [0, 1, 3, 7, 16])
def test_polynomial_mse_loss(degree: int, reduction: str, dtype: torch.dtype) -> None:
    points = 45
    x, target = 2 * torch.rand(points, dtype=dtype) - 1, torch.randn(points, dtype=dtype)
    coefficients = torch.randn(degree + 1, dtype=dtype)

    def powers(x: Tensor, coefficients: Tensor, target: Tensor, reduction: str) -> Tensor:
        table = x.unsqueeze(-1) ** torch.arange(degree + 1)
        return F.mse_loss(table @ coefficients, target, reduction=reduction)

    # A residual takes 2 · degree + 1; the loss squares it, the gradient multiplies it by a power.
    # torch's pow rounds a power once or a few times, fewer than its degree.
    for oracle in (gdcore.reference.polynomial_mse_loss, powers):
        compare(
            lambda x, c, t: gdcore.functional.polynomial_mse_loss(x, c, t, reduction),
            lambda x, c, t, oracle=oracle: oracle(x, c, t, reduction),
            lambda x, c, t: gdcore.reference.polynomial_mse_loss(x, c, t, reduction),
            (x, coefficients),
            target,
            2 * (2 * degree + 1) + degree + points + 8,
            range(1, 2),
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_legendre_mse_loss(reduction: str, dtype: torch.dtype) -> None:
    points = 45
    x, target = 2 * torch.rand(points, dtype=dtype) - 1, torch.randn(points, dtype=dtype)
    scalars = torch.randn(4, dtype=dtype).unbind()

    def absolute(x: Tensor, *rest: Tensor) -> Tensor:
        *scalars, target = rest
        prediction = absolute_legendre(x, *scalars)
        return gdcore.reference.mse_loss(prediction, target, reduction)

    # u = c + d x takes 2, u³ thrice that and 3 (torch's pow), P₃ 4 more, r another 3: 16.
    compare(
        functools.partial(gdcore.functional.legendre_mse_loss, reduction=reduction),
        functools.partial(gdcore.reference.legendre_mse_loss, reduction=reduction),
        absolute,
        (x, *scalars),
        target,
        2 * 16 + points + 8,
        range(1, 5),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (33,), (7, 5), (3, 4, 5)])
def test_legendre_p3(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape, dtype=dtype)
    # Value and derivative: fewer than eight roundings each, torch's pow counted as three.
    compare(
        lambda x, _: gdcore.functional.legendre_p3(x),
        lambda x, _: gdcore.reference.legendre_p3(x),
        lambda x, _: 0.5 * (5 * x**3 + 3 * x),
        (x,),
        x,
        8,
        range(1),
    )
    grid = torch.tensor([-1.0, 0.0, 1.0, 3.0], dtype=dtype)
    assert gdcore.functional.legendre_p3(grid).tolist() == [-1.0, 0.0, 1.0, 63.0]


def test_legendre_p3_derivative_is_the_derivative() -> None:
    x = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(gdcore.reference.legendre_p3(x).sum(), x)
    stated = gdcore.reference.legendre_p3_derivative(x)
    assert_within_rounding(stated, slope, 1.5 * (5 * x**2 + 1), 8)
