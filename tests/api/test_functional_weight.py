"""Weights and the loss of each element, against PyTorch's own composition."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gdcore

from ..devices import ON_CPU
from .loss_cases import cases, selections
from .refusal import refused

pytestmark = pytest.mark.usefixtures("device")

functional = gdcore.functional
# Of order one, sums of at most ten: fewer than 64 roundings of values below 200.
TOLERANCE = {torch.float32: 64 * 2.0**-24 * 200, torch.float64: 64 * 2.0**-53 * 200}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("name", "reduction", "weighted"), selections())
def test_loss_and_gradients(name: str, reduction: str, weighted: bool, dtype: torch.dtype) -> None:
    case = cases(reduction, weighted, dtype)[name]
    results = []
    for formula in (case.fused, case.plain):
        leaves = case.leaves()
        loss = formula(*leaves)
        upstream = torch.linspace(0.5, 1.5, loss.numel(), dtype=dtype).reshape(loss.shape)
        results.append((loss, *torch.autograd.grad(loss, leaves, upstream)))
    for actual, expected in zip(*results, strict=True):
        assert actual.dtype == dtype
        assert (expected != 0).all()
        assert expected.abs().max() < 200
        torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE[dtype])


def test_as_torchs_own_weights() -> None:
    if "weight" not in inspect.signature(F.mse_loss).parameters:
        pytest.skip("this torch has no weights in mse_loss")
    input, target = torch.randn(2, 6, 3).double()
    for weight in (torch.rand(6, 3).double(), torch.rand(6, 1).double().expand(6, 3)):
        for reduction in ("mean", "sum", "none"):
            actual = functional.mse_loss(input, target, reduction, weight)
            expected = F.mse_loss(input, target, reduction=reduction, weight=weight)
            torch.testing.assert_close(actual, expected, rtol=64 * 2.0**-53, atol=0)


def test_a_weight_for_each_row() -> None:
    """Expanded, it is the loss in which each row is counted that often."""
    x, weight, target = torch.randn(4, 3), torch.randn(2, 3), torch.randn(4, 2)
    counts = torch.tensor([1, 0, 3, 2])
    weighted = functional.linear_mse_loss(
        x, weight, None, target, loss_weight=counts.float()[:, None].expand(4, 2)
    )
    repeated = functional.linear_mse_loss(
        x.repeat_interleave(counts, 0), weight, None, target.repeat_interleave(counts, 0)
    )
    torch.testing.assert_close(weighted, repeated, rtol=64 * 2.0**-24, atol=0)


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_weights_of_zero_and_not_finite_spread_as_in_torch(value: float) -> None:
    input, target = torch.randn(2, 6)
    input.requires_grad_()
    for weight in (torch.full((6,), value), torch.tensor([1.0, value, 2.0, 1.0, 1.0, 1.0])):
        found = []
        for fused in (True, False):
            if fused:
                loss = functional.mse_loss(input, target, weight=weight)
            else:
                loss = ((input - target) ** 2 * weight).sum() / weight.sum()
            found.append((loss, *torch.autograd.grad(loss, input)))
        for actual, expected in zip(*found, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0, equal_nan=True)


def test_a_weight_changed_in_place_is_an_error() -> None:
    input, weight = torch.randn(4, requires_grad=True), torch.rand(4)
    loss = functional.mse_loss(input, torch.zeros(4), weight=weight)
    weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("shape", [(4,), (1, 1), (2, 4), (4, 1, 1), ()])
def test_weights_are_never_broadcast(shape: tuple[int, ...], reduction: str) -> None:
    y, x, weight = torch.ones(4, 1), torch.ones(4, 2), torch.ones(shape)
    with refused(ValueError, "weight", "(4, 1) as input"):
        functional.mse_loss(y, y, reduction, weight)
    with refused(ValueError, "loss_weight", "(4, 1) as the prediction"):
        functional.linear_mse_loss(x, x[:1], None, y, reduction, weight)
    if shape != (4,):
        with refused(ValueError, "weight", "(4,) as x"):
            functional.polynomial_mse_loss(y[:, 0], y[:, 0], y[:, 0], reduction, weight)


@ON_CPU  # where "meta" is another device than its
def test_weights_of_another_kind() -> None:
    y, x = torch.ones(4, 1), torch.ones(4, 2)
    for wrong, kind, part in (
        ([1.0] * 4, TypeError, "torch.Tensor"),
        (torch.ones(4, 1, dtype=torch.complex64), TypeError, "torch.float32 as"),
        (torch.ones(4, 1, device="meta"), ValueError, "CPU"),
        (torch.ones(4, 1).to_sparse(), ValueError, "dense"),
    ):
        weight: Tensor = wrong  # type: ignore[assignment]
        with refused(kind, "weight", part):
            functional.mse_loss(y, y, weight=weight)
        with refused(kind, "loss_weight", part):
            functional.linear_mse_loss(x, x[:1], None, y, loss_weight=weight)
