"""gdcore.functional where arguments are awkward: layouts, nothing at all, NaN and infinity."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gdcore

pytestmark = pytest.mark.usefixtures("device")

Loss = Callable[..., Tensor]


def layouts(rows: int, columns: int) -> dict[str, Tensor]:
    """One matrix's values in every layout that reading must cope with."""
    values = torch.randn(rows, columns)
    gaps = torch.full((3 * rows, 2 * columns), math.nan)
    gaps[::3, ::2] = values
    complex_pair = torch.complex(torch.zeros(rows, columns), -values)
    return {
        "contiguous": values,
        "transposed": values.t().contiguous().t(),
        "strided": gaps[::3, ::2],
        "offset": torch.cat([torch.full((1, columns), math.nan), values])[1:],
        "negated lazily": complex_pair.conj().imag,
    }


LAYOUTS = tuple(layouts(1, 1))


def quadruple(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b, c, d = values.unbind()
    return a, b, c, d


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_result(layout: str) -> None:
    x, target = layouts(21, 6), layouts(21, 6)
    weight, bias = torch.randn(6, 6), torch.randn(6)
    coefficients = torch.randn(4)
    scalars = quadruple(coefficients)

    def results(x: Tensor, target: Tensor) -> list[Tensor]:
        functional = gdcore.functional
        return [
            functional.mse_loss(x, target),
            functional.mse_loss(x, target, "none"),
            functional.mse_loss(x.unflatten(0, (3, 7)), target.unflatten(0, (3, 7)), "sum"),
            functional.linear_mse_loss(x, weight, bias, target),
            functional.polynomial_mse_loss(x[:, 1], coefficients, target[:, 2]),
            functional.legendre_mse_loss(x[:, 1], *scalars, target[:, 2]),
            functional.legendre_p3(x),
        ]

    plain = results(x["contiguous"], target["contiguous"])
    for actual, expected in zip(results(x[layout], target[layout]), plain, strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parameters_in_every_layout(layout: str) -> None:
    x, target, weights = torch.randn(9, 5), torch.randn(9, 4), layouts(4, 5)
    plain = weights["contiguous"].clone().requires_grad_()
    other = weights[layout].detach().requires_grad_()
    losses = [gdcore.functional.linear_mse_loss(x, w, None, target) for w in (plain, other)]
    slopes = [
        torch.autograd.grad(loss, w)[0] for loss, w in zip(losses, (plain, other), strict=True)
    ]
    assert torch.equal(*losses)
    assert torch.equal(*slopes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gradient_from_above_in_every_layout(layout: str) -> None:
    upstream = layouts(5, 4)
    x, target = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4)
    for losses in (
        gdcore.functional.mse_loss(x, target, "none"),
        gdcore.functional.legendre_p3(x),
    ):
        (expected,) = torch.autograd.grad(losses, x, upstream["contiguous"], retain_graph=True)
        (actual,) = torch.autograd.grad(losses, x, upstream[layout])
        assert torch.equal(actual, expected)


def test_values_repeated_by_expansion() -> None:
    x, target = torch.randn(1, 3).expand(11, 3), torch.randn(1, 2).expand(11, 2)
    weight = torch.randn(2, 3)
    expanded = gdcore.functional.linear_mse_loss(x, weight, None, target)
    copied = gdcore.functional.linear_mse_loss(x.clone(), weight, None, target.clone())
    assert torch.equal(expanded, copied)
    row = torch.randn(1).expand(8)
    losses = gdcore.functional.mse_loss(row, torch.zeros(8), "none")
    assert torch.equal(losses, row**2)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_as_torch_has_it(reduction: str) -> None:
    """The mean of nothing is NaN, its sum zero; the gradient of parameters is zero."""
    x, target = torch.empty(0, 3), torch.empty(0, 2)
    weight = torch.ones(2, 3, requires_grad=True)
    bias = torch.ones(2, requires_grad=True)
    found = []
    for loss in (
        gdcore.functional.linear_mse_loss(x, weight, bias, target, reduction),
        F.mse_loss(F.linear(x, weight, bias), target, reduction=reduction),
    ):
        found.append((loss, *torch.autograd.grad(loss, (weight, bias))))
    for actual, expected in zip(*found, strict=True):
        assert torch.equal(actual.nan_to_num(7.0), expected.nan_to_num(7.0))
    assert found[0][0].isnan() if reduction == "mean" else found[0][0] == 0

    nothing = torch.empty(0)
    for loss in (
        gdcore.functional.mse_loss(nothing, nothing, reduction),
        gdcore.functional.polynomial_mse_loss(nothing, torch.ones(3), nothing, reduction),
        gdcore.functional.legendre_mse_loss(nothing, *quadruple(torch.ones(4)), nothing, reduction),
    ):
        assert loss.isnan() if reduction == "mean" else loss == 0


def test_nothing_elementwise() -> None:
    nothing = torch.empty(0, 4)
    assert gdcore.functional.mse_loss(nothing, nothing, "none").shape == (0, 4)
    assert gdcore.functional.legendre_p3(nothing).shape == (0, 4)


def test_no_features_leaves_the_bias() -> None:
    bias, target = torch.tensor([1.0, -2.0], requires_grad=True), torch.zeros(5, 2)
    loss = gdcore.functional.linear_mse_loss(torch.empty(5, 0), torch.empty(2, 0), bias, target)
    assert loss.item() == 2.5
    assert torch.autograd.grad(loss, bias)[0].tolist() == [1.0, -2.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["x", "target", "weight"])
@pytest.mark.parametrize("columns", [3, 20])
def test_what_is_not_finite_spreads_as_in_torch(columns: int, place: str, value: float) -> None:
    tensors = {
        "x": torch.randn(19, columns),
        "weight": torch.randn(2, columns),
        "target": torch.randn(19, 2),
    }
    tensors[place][1, 1] = value
    x, weight, target = tensors.values()
    found = []
    for fused in (True, False):
        arguments = (x.clone().requires_grad_(), weight.clone().requires_grad_())
        if fused:
            loss = gdcore.functional.linear_mse_loss(*arguments, None, target)
        else:
            loss = F.mse_loss(F.linear(*arguments), target)
        found.append((loss, *torch.autograd.grad(loss, arguments)))
    assert not found[0][0].isfinite()
    for actual, expected in zip(*found, strict=True):
        assert torch.equal(actual.isnan(), expected.isnan())
        assert torch.equal(actual.isposinf(), expected.isposinf())
        assert torch.equal(actual.isneginf(), expected.isneginf())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_mse_loss_elementwise_keeps_what_is_not_finite_in_its_place(value: float) -> None:
    x, target = torch.tensor([1.0, value, 2.0], requires_grad=True), torch.zeros(3)
    actual = gdcore.functional.mse_loss(x, target, "none")
    expected = F.mse_loss(x, target, reduction="none")
    assert torch.equal(actual.nan_to_num(7.0), expected.nan_to_num(7.0))
    slopes = [torch.autograd.grad(t.sum(), x)[0] for t in (actual, expected)]
    assert torch.equal(slopes[0].nan_to_num(7.0), slopes[1].nan_to_num(7.0))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_models_of_one_variable_at_a_point_that_is_not_finite(value: float) -> None:
    """P₃ at infinity is ∞ from u (5u² - 3)/2 and NaN (∞ - ∞) from (5u³ - 3u)/2: never finite."""
    x, target = torch.tensor([0.5, value, 1.0]), torch.tensor([1.0, 0.0, 2.0])
    assert gdcore.functional.legendre_p3(x).isfinite().tolist() == [True, False, True]
    coefficients = torch.tensor([1.0, 2.0, 0.5, -1.0], requires_grad=True)
    for loss in (
        gdcore.functional.polynomial_mse_loss(x, coefficients, target),
        gdcore.functional.legendre_mse_loss(x, *quadruple(coefficients), target),
    ):
        assert not loss.isfinite()
        assert not torch.autograd.grad(loss, coefficients)[0].isfinite().any()
