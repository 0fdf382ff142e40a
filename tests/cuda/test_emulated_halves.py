"""Losses of half types as they are on CUDA, over emulated kernels.

The kernels read what is stored, and gradients are rounded once, after the factor from above.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gdcore import _ops, functional, reference

HALVES = [torch.bfloat16, torch.float16]
# A gradient of a mean over these rows is a few of float16's smallest numbers.
ROWS = 5000


@pytest.fixture(autouse=True)
def as_on_a_device(on_host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def implementation(name: str, native: bool) -> Any:
        return getattr(on_host, name)

    monkeypatch.setattr(_ops, "implementation", implementation)
    monkeypatch.setattr(_ops, "reads_halves", lambda tensor: tensor.dtype in HALVES)


def points(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, ROWS * (shape[0] if shape else 1)).sin().reshape(ROWS, *shape)


Case = tuple[Callable[..., Tensor], Callable[..., Tensor], tuple[Tensor, ...], tuple[int, ...]]
RESIDUAL = 1e-3 * torch.rand(ROWS)
LINE = (points(3), torch.tensor([[0.5, -0.25, 0.125]]), torch.tensor([0.03125]))
CASES: dict[str, Case] = {
    "mse": (functional.mse_loss, reference.mse_loss, (RESIDUAL, 0 * RESIDUAL), (0, 1)),
    "weighted": (
        lambda x, y, w: functional.mse_loss(x, y, weight=w),
        lambda x, y, w: reference.mse_loss(x, y, "mean", w),
        (RESIDUAL, 0 * RESIDUAL, 0.5 + torch.rand(ROWS)),
        (0, 1),
    ),
    "linear": (
        functional.linear_mse_loss,
        reference.linear_mse_loss,
        (*LINE, points(1) / 8),
        (1, 2),
    ),
    "linear with x": (
        functional.linear_mse_loss,
        reference.linear_mse_loss,
        (*LINE, points(1) / 8),
        (0, 1, 2),
    ),
    "wide": (
        functional.linear_mse_loss,
        reference.linear_mse_loss,
        (torch.rand(20, 600), torch.rand(1, 600), torch.zeros(1), torch.rand(20, 1)),
        (0, 1, 2),
    ),
    "polynomial": (
        functional.polynomial_mse_loss,
        reference.polynomial_mse_loss,
        (points(), torch.tensor([0.5, -0.25, 0.125]), points() / 8),
        (1,),
    ),
    "legendre": (
        functional.legendre_mse_loss,
        lambda *data: reference.mse_loss(reference.legendre(*data[:-1]), data[-1]),
        (points(), *torch.tensor([0.5, -0.25, 0.125, 0.75]), points() / 8),
        (1, 2, 3, 4),
    ),
}


def case(name: str, half: torch.dtype) -> tuple[Any, Any, list[Tensor], list[Tensor], Any]:
    """Both functions, with data of the half type and the same in float64."""
    ours, theirs, data, wanted = CASES[name]
    stored = [t.to(half) for t in data]
    wide = [t.double() for t in stored]
    for i in wanted:
        stored[i].requires_grad_()
        wide[i].requires_grad_()
    return ours, theirs, stored, wide, wanted


def rounded_once(found: Tensor | None, exact: Tensor | None, half: torch.dtype) -> None:
    assert found is not None
    assert exact is not None
    assert found.dtype == half
    # Before it is rounded, float32's own errors: sums of thousands of terms, in doubles.
    noise = 2.0**-16 * exact.abs().max().item() + torch.finfo(half).smallest_normal * 2**-10
    unit = torch.finfo(half).eps / 2
    torch.testing.assert_close(found.double(), exact, rtol=unit, atol=noise)


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str, half: torch.dtype) -> None:
    """Scaled, as by a `GradScaler`: what would vanish in float16 is there."""
    ours, theirs, stored, wide, wanted = case(name, half)
    loss, exact = ours(*stored), theirs(*wide)
    rounded_once(loss.detach(), exact.detach(), half)
    factor = 1.0 if name == "wide" else 2.0**12
    (loss * factor).backward(retain_graph=True)
    (exact * factor).backward()
    for i in wanted:
        rounded_once(stored[i].grad, wide[i].grad, half)
    # Once more, when what the forward has computed is gone.
    first = [stored[i].grad for i in wanted]
    for i in wanted:
        stored[i].grad = None
    (loss * factor).backward()
    for i, before in zip(wanted, first, strict=True):
        torch.testing.assert_close(stored[i].grad, before, rtol=0, atol=0)


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("name", ["mse", "linear", "polynomial", "legendre"])
def test_gradients_of_gradients(name: str, half: torch.dtype) -> None:
    ours, theirs, stored, wide, wanted = case(name, half)
    factor = 2.0**12 if name == "mse" else 1.0
    found = []
    for function, data in ((ours, stored), (theirs, wide)):
        parameters = [data[i] for i in wanted]
        slopes = torch.autograd.grad(function(*data) * factor, parameters, create_graph=True)
        norm = sum((slope.double() ** 2).sum() for slope in slopes)
        found.append(torch.autograd.grad(norm, parameters, allow_unused=True))
    for half_s, exact in zip(*found, strict=True):
        unit, largest = torch.finfo(half).eps, exact.abs().max().item()
        # The slopes were rounded, and so is what comes from each of them.
        torch.testing.assert_close(half_s.double(), exact, rtol=0, atol=8 * unit * largest)


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_each_of_its_own(half: torch.dtype) -> None:
    input, target = points(3).to(half).requires_grad_(), torch.zeros(ROWS, 3, dtype=half)
    each = functional.mse_loss(input, target, "none")
    wide = input.detach().double()
    rounded_once(each.detach(), wide**2, half)
    each.backward(torch.full_like(each, 3.0))
    rounded_once(input.grad, 6 * wide, half)


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_legendre_p3(half: torch.dtype) -> None:
    x = points().to(half).requires_grad_()
    wide = x.detach().double().requires_grad_()
    ours, exact = functional.legendre_p3(x), reference.legendre_p3(wide)
    rounded_once(ours.detach(), exact.detach(), half)
    ours.backward(torch.full_like(ours, 0.75))
    exact.backward(torch.full_like(exact, 0.75))
    rounded_once(x.grad, wide.grad, half)


def test_weights_that_learn() -> None:
    """Their gradient is the formula's alone, in float32."""
    input, weight = torch.rand(9).bfloat16(), torch.rand(9).bfloat16().requires_grad_()
    functional.mse_loss(input, 0 * input, weight=weight).backward()
    wide = weight.detach().double().requires_grad_()
    reference.mse_loss(input.double(), 0 * input.double(), "mean", wide).backward()
    rounded_once(weight.grad, wide.grad, torch.bfloat16)
