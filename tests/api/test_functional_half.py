"""bfloat16 and float16, and autocast: stored narrow, computed in float32, rounded once."""

import pytest
import torch
import torch.nn.functional as F

import gdcore

from .loss_cases import cases, selections
from .refusal import refused

pytestmark = pytest.mark.usefixtures("device")
HALF = [torch.bfloat16, torch.float16]
functional = gdcore.functional


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize(("name", "reduction", "weighted"), selections())
def test_the_rounded_result_of_float32(
    name: str,
    reduction: str,
    weighted: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    torch.manual_seed(2)
    case = cases(reduction, weighted, dtype)[name]
    leaves = case.leaves()
    loss = case.fused(*leaves)
    found = [loss, *torch.autograd.grad(loss.sum(), leaves)]
    assert all(result.dtype == dtype for result in found)

    # The same values, already in float32: what the constants of a case hold is seeded alike.
    torch.manual_seed(2)
    narrow = cases(reduction, weighted, dtype)[name]
    leaves = [t.float().requires_grad_() for t in narrow.inputs]
    with torch.autocast(device.type, dtype):  # widens every argument
        loss = narrow.fused(*leaves)
    wide = [loss, *torch.autograd.grad(loss.sum(), leaves)]
    assert all(result.dtype == torch.float32 for result in wide)
    for actual, expected in zip(found, wide, strict=True):
        assert torch.equal(actual, expected.to(dtype))
        assert (actual != 0).all()


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_legendre_p3(dtype: torch.dtype) -> None:
    x = torch.randn(9, dtype=dtype).requires_grad_()
    value = functional.legendre_p3(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    wide = x.detach().float()
    assert torch.equal(value, functional.legendre_p3(wide).to(dtype))
    assert torch.equal(slope, gdcore.reference.legendre_p3_derivative(wide).to(dtype))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_nearer_to_the_exact_mean_than_torch(dtype: torch.dtype) -> None:
    """Half a unit in the last place of the exact result, where torch rounds every square."""
    input, target = torch.randn(2, 1000, dtype=dtype)
    exact = F.mse_loss(input.double(), target.double())
    ours = functional.mse_loss(input, target)
    assert ours == exact.to(dtype)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_transforms(dtype: torch.dtype) -> None:
    case = cases(dtype=dtype)["linear_mse"]
    slopes = torch.func.grad(case.fused, argnums=(1, 2))(*case.inputs)
    leaves = case.leaves()
    expected = torch.autograd.grad(case.fused(*leaves), leaves[1:])
    for actual, other in zip(slopes, expected, strict=True):
        assert actual.dtype == dtype
        # Both are float32 rounded once: at most neighbours.
        torch.testing.assert_close(actual, other, rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_a_half_type_is_not_broadcast() -> None:
    half = torch.ones(4, dtype=torch.bfloat16)
    with refused(ValueError, "target", "(4,) as input", "use target.squeeze(-1)"):
        functional.mse_loss(half, half[:, None])


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("input_dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_autocast_as_the_namesake(
    input_dtype: torch.dtype, dtype: torch.dtype, device: torch.device
) -> None:
    """float32 for what is narrower; float64 is left alone. Numbers of the float32 loss."""
    input = torch.randn(6, 2, dtype=input_dtype).requires_grad_()
    target = torch.randn(6, 2).to(input_dtype)
    found = []
    for formula in (functional.mse_loss, F.mse_loss):
        with torch.autocast(device.type, dtype):
            loss = formula(input, target)
        (slope,) = torch.autograd.grad(loss, input)
        assert slope.dtype == input_dtype
        found.append((loss, slope))
    for actual, expected in zip(*found, strict=True):
        assert actual.dtype == expected.dtype
        eps = torch.finfo(actual.dtype).eps
        torch.testing.assert_close(actual, expected, rtol=16 * eps, atol=0)


def coarsest(actual: torch.Tensor, dtypes: set[torch.dtype]) -> float:
    """What torch rounds to: it subtracts, multiplies by weights and adds them up, each in its own
    dtype, whatever it returns.
    """
    return max(torch.finfo(dtype).eps for dtype in {actual.dtype, *dtypes})


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_with_weights_as_the_namesake(
    dtype: torch.dtype, reduction: str, device: torch.device
) -> None:
    input, target, weight = (torch.rand(3, 4, 3) + 0.1).to(dtype)
    with torch.autocast(device.type, torch.bfloat16):
        found = functional.mse_loss(input, target, reduction, weight)
        expected = F.mse_loss(input, target, reduction=reduction, weight=weight)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=16 * coarsest(found, {dtype}), atol=0)


ALL = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weight_dtype", [None, *ALL], ids=str)
@pytest.mark.parametrize("target_dtype", ALL, ids=str)
@pytest.mark.parametrize("input_dtype", ALL, ids=str)
def test_autocast_promotes_as_the_namesake(
    input_dtype: torch.dtype,
    target_dtype: torch.dtype,
    weight_dtype: torch.dtype | None,
    reduction: str,
    device: torch.device,
) -> None:
    """To float32, or to float64 where one is."""
    values = torch.rand(3, 4, 3) + 0.1
    target = values[1].to(target_dtype)
    weight = None if weight_dtype is None else values[2].to(weight_dtype)
    dtypes = {t.dtype for t in (values[0].to(input_dtype), target, weight) if t is not None}
    found: list[tuple[torch.Tensor, ...]] = []
    for formula in (functional.mse_loss, F.mse_loss):
        input = values[0].to(input_dtype, copy=True).requires_grad_()
        own = target.clone().requires_grad_()
        with torch.autocast(device.type, torch.bfloat16):
            loss = formula(input, own, reduction=reduction, weight=weight)
        found.append((loss, *torch.autograd.grad(loss.sum(), (input, own))))
    for actual, expected in zip(*found, strict=True):
        assert actual.dtype == expected.dtype
        eps = torch.finfo(actual.dtype).eps if weight is None else coarsest(actual, dtypes)
        torch.testing.assert_close(actual, expected, rtol=16 * eps, atol=0)


def test_autocast_mixes_what_a_linear_gives_with_its_target(device: torch.device) -> None:
    model, x, y = torch.nn.Linear(3, 1), torch.randn(5, 3), torch.randn(5, 1)
    with torch.autocast(device.type, torch.bfloat16):
        prediction = model(x)
        assert prediction.dtype == torch.bfloat16
        loss = functional.mse_loss(prediction, y)
        other = F.mse_loss(prediction, y)
    assert loss.dtype == other.dtype == torch.float32
    torch.testing.assert_close(loss, other, rtol=16 * 2.0**-23, atol=0)
    loss.backward()
    assert model.weight.grad is not None
    assert model.weight.grad.dtype == torch.float32


def test_autocast_does_not_round_a_prediction_that_is_never_stored(device: torch.device) -> None:
    x, y = torch.randn(5, 3), torch.randn(5, 1)
    weight, bias = torch.randn(1, 3), torch.randn(1)
    for reduction in ("mean", "none"):
        expected = functional.linear_mse_loss(x, weight, bias, y, reduction)
        with torch.autocast(device.type, torch.bfloat16):
            actual = functional.linear_mse_loss(x, weight, bias, y, reduction)
            halves = functional.linear_mse_loss(x, weight, bias, y.bfloat16(), reduction)
        assert torch.equal(actual, expected)
        assert halves.dtype == torch.float32


def test_autocast_around_a_second_derivative(device: torch.device) -> None:
    """The formula that autograd sees is not rounded to bfloat16 either."""
    x, y = torch.randn(5, 3), torch.randn(5, 1)
    weight = torch.randn(1, 3, requires_grad=True)
    slopes = []
    for enabled in (True, False):
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            loss = functional.linear_mse_loss(x, weight, None, y)
            slopes += torch.autograd.grad(loss, weight, create_graph=True)
    assert torch.equal(*slopes)
