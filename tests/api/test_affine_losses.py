"""Losses that are squared errors, in the ways people write them, and those that only look so."""

import functools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gdcore
from gdcore._recognition.losses import NotSquaredError, SquaredError, squared_error

from ..devices import NOT_EMULATED

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]


class Own(nn.Module):
    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        return ((y - h) ** 2).mean()


def statement(hypothesis: Tensor, target: Tensor) -> Tensor:
    cost = torch.mean((hypothesis - target) ** 2)
    return cost  # noqa: RET504


MEAN: dict[str, Callable[..., Tensor]] = {
    "nn.MSELoss": nn.MSELoss(),
    "F.mse_loss": F.mse_loss,
    "gdcore.nn.MSELoss": gdcore.nn.MSELoss(),
    "gdcore.functional.mse_loss": gdcore.functional.mse_loss,
    "a function": statement,
    "a module": Own(),
    "torch.mean": lambda h, y: torch.mean((h - y) ** 2),
    "square": lambda h, y: (h - y).square().mean(),
    "a product": lambda h, y: ((h - y) * (h - y)).mean(),
    "divided": lambda h, y: ((h - y) ** 2).sum() / h.numel(),
    "called inside": lambda h, y: F.mse_loss(h, y),
    "gdcore's inside": lambda h, y: gdcore.functional.mse_loss(h, y),
    "a partial": functools.partial(F.mse_loss, reduction="mean"),
    "method of a module": nn.MSELoss().forward,
}
SUM: dict[str, Callable[..., Tensor]] = {
    "nn.MSELoss": nn.MSELoss(reduction="sum"),
    "gdcore.nn.MSELoss": gdcore.nn.MSELoss("sum"),
    "a partial": functools.partial(F.mse_loss, reduction="sum"),
    "gdcore's partial": functools.partial(gdcore.functional.mse_loss, reduction="sum"),
    "pow and sum": lambda h, y: (h - y).pow(2).sum(),
    "flattened dot": lambda h, y: (h - y).flatten() @ (h - y).flatten(),
    "keyword inside": lambda h, y: F.mse_loss(h, y, reduction="sum"),
    "divided by one": lambda h, y: (h - y).pow(2).sum() / 1.0,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_taken(dtype: torch.dtype, device: torch.device) -> None:
    for name, loss in MEAN.items():
        assert squared_error(loss, dtype=dtype, device=device) == SquaredError(True), name
    for name, loss in SUM.items():
        assert squared_error(loss, dtype=dtype, device=device) == SquaredError(False), name


def hook(*_: Any) -> None:
    """Does nothing, but could."""


def hooked() -> nn.Module:
    loss = nn.MSELoss()
    loss.register_forward_hook(hook)
    return loss


def replaced() -> nn.Module:
    loss = nn.MSELoss()
    loss.forward = lambda h, y: (h - y).abs().mean()  # type: ignore[method-assign]
    return loss


CALLS: list[int] = []


def counting(h: Tensor, y: Tensor) -> Tensor:
    CALLS.append(1)
    return ((h - y) ** 2).mean()


def branching(h: Tensor, y: Tensor) -> Tensor:
    return ((h - y) ** 2).mean() if h.sum() > -1e30 else h.sum()


def of_target(read: Callable[[Tensor], Any]) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(h: Tensor, y: Tensor) -> Tensor:
        read(y)
        return ((h - y) ** 2).mean()

    return loss


def writing(h: Tensor, y: Tensor) -> Tensor:
    y.mul_(1)
    return ((h - y) ** 2).mean()


NEITHER: dict[str, tuple[Any, str]] = {
    "absolute error": (F.l1_loss, "squared error"),
    "half": (lambda h, y: ((h - y) ** 2).mean() / 2, "not those"),
    "Huber, quadratic near zero": (lambda h, y: 2 * F.huber_loss(h, y, delta=100.0), "huber_loss"),
    "a power close to two": (lambda h, y: ((h - y).abs() ** 2.0001).mean(), "not those"),
    "without target": (lambda h, y: (h**2).mean(), "not those"),
    "a detached residual": (lambda h, y: ((h - y).detach() * (h - y)).mean(), "not those"),
    "broadcast": (lambda h, y: ((h - y[:, None]) ** 2).mean(), ""),
    "mean of the rows only": (lambda h, y: ((h - y) ** 2).sum() / len(h), "not those"),
    "no reduction": (nn.MSELoss(reduction="none"), "neither mean nor sum"),
    "no reduction in a function": (lambda h, y: (h - y) ** 2, "not one number"),
    "a partial of none": (functools.partial(F.mse_loss, reduction="none"), "neither"),
    "a number": (lambda h, y: ((h - y) ** 2).mean().item(), "Python reads"),
    "branches": (branching, "Python reads"),
    "a list of the target": (of_target(Tensor.tolist), "Python reads"),
    "an array of the target": (of_target(lambda y: y.cpu().numpy()), "Python reads"),
    "a number of the target": (of_target(lambda y: y.sum().item()), "Python reads"),
    "random": (lambda h, y: ((h - y) ** 2).mean() + 0 * torch.rand(()), "random"),
    "Python's random": (lambda h, y: ((h - y) ** 2).mean() * random.random(), "random numbers"),
    "writes to the target": (writing, "writes"),
    "counts": (counting, "state"),
    "a hook": (hooked(), "hook"),
    "a replaced forward": (replaced(), "not those"),
    "clamped": (lambda h, y: (h - y).clamp(-1e9, 1e9).square().mean(), "clamp"),
    "without gradient": (torch.no_grad()(lambda h, y: ((h - y) ** 2).mean()), "gradient"),
    "nanmean": (lambda h, y: torch.nanmean((h - y) ** 2), "no part"),
    "an error": (lambda h: h, "raises TypeError"),
    "no function": ("mse", "cannot be called"),
    "a wider dtype": (lambda h, y: ((h.double() - y) ** 2).mean(), ""),
}


@pytest.mark.parametrize("name", NEITHER)
def test_refused(name: str, device: torch.device) -> None:
    loss, reason = NEITHER[name]
    before = torch.get_rng_state()
    found = squared_error(loss, device=device)
    assert isinstance(found, NotSquaredError), found
    assert reason in found.reason
    assert torch.equal(torch.get_rng_state(), before)
    assert CALLS == []


def test_a_formula_for_the_shapes_in_use(device: torch.device) -> None:
    """Divided by the rows, it is a mean where there is one column; by 8, where there are 8."""
    by_rows = lambda h, y: ((h - y) ** 2).sum() / len(h)  # noqa: E731
    assert squared_error(by_rows, [(5,), (8, 1)], device=device) == SquaredError(True)
    assert isinstance(squared_error(by_rows, [(5, 2)], device=device), NotSquaredError)
    by_eight = lambda h, y: ((h - y) ** 2).sum() / 8  # noqa: E731
    assert squared_error(by_eight, [(8,)], device=device) == SquaredError(True)
    assert isinstance(squared_error(by_eight, [(8,), (7,)], device=device), NotSquaredError)


ALMOST: dict[str, Callable[..., Tensor]] = {
    "two fewer": lambda h, y: ((h - y) ** 2).sum() / (y.numel() - 2),
    "a constant": lambda h, y: ((h - y) ** 2).mean() + 1e-8,
    "a factor": lambda h, y: (1 + 1e-5) * ((h - y) ** 2).mean(),
    "a factor of the residual": lambda h, y: (((1 + 1e-5) * (h - y)) ** 2).sum(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_many_elements(dtype: torch.dtype, device: torch.device) -> None:
    """Whose sum may round by more than what these are off."""
    shapes = [(20_000,), (30, 1000)]
    for losses, mean in ((MEAN, True), (SUM, False)):
        for name, loss in losses.items():
            assert squared_error(loss, shapes, dtype, device) == SquaredError(mean), name
    for name, loss in ALMOST.items():
        assert isinstance(squared_error(loss, shapes, dtype, device), NotSquaredError), name


def test_one_element_is_a_mean(device: torch.device) -> None:
    assert squared_error(MEAN["torch.mean"], [(1,)], device=device) == SquaredError(True)
