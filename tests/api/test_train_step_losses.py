"""train_step with a loss that changes between two steps: what it says now is what counts."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

import gdcore

from ..devices import NOT_EMULATED

# Known by their names alone, models step natively elsewhere; these step eagerly there.
pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]


class Scaled(nn.Module):
    """By a number or a tensor."""

    scale: Any

    def __init__(self, scale: Any) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = self.scale * F.mse_loss(h, y)
        return loss


def hundredfold(module: nn.Module, given: Any, out: Tensor) -> Any:
    return 100 * out if isinstance(module, nn.MSELoss) else None


def reduction() -> tuple[Any, Callable[[], Any]]:
    loss = nn.MSELoss()
    return loss, lambda: setattr(loss, "reduction", "sum")


def hook() -> tuple[Any, Callable[[], Any]]:
    loss = nn.MSELoss()
    return loss, lambda: loss.register_forward_hook(hundredfold)


def hook_of_all() -> tuple[Any, Callable[[], Any]]:
    return nn.MSELoss(), lambda: register_module_forward_hook(hundredfold)


def no_hook() -> tuple[Any, Callable[[], Any]]:
    loss = nn.MSELoss()
    return loss, loss.register_forward_hook(hundredfold).remove


def keyword() -> tuple[Any, Callable[[], Any]]:
    loss = functools.partial(F.mse_loss, reduction="mean")
    return loss, lambda: loss.keywords.update(reduction="sum")


def keyword_within() -> tuple[Any, Callable[[], Any]]:
    inner = functools.partial(lambda h, y, scale: scale * F.mse_loss(h, y), scale=1.0)
    return lambda h, y: inner(h, y), lambda: inner.keywords.update(scale=3.0)


def keyword_of_two() -> tuple[Any, Callable[[], Any]]:
    inner = functools.partial(lambda h, y, scale, power: scale * ((h - y) ** power).mean(), power=2)
    loss = functools.partial(inner, scale=1.0)
    return loss, lambda: loss.keywords.update(scale=3.0)


def number() -> tuple[Any, Callable[[], Any]]:
    loss = Scaled(1.0)
    return loss, lambda: setattr(loss, "scale", 3.0)


def buffer() -> tuple[Any, Callable[[], Any]]:
    loss = Scaled(nn.Buffer(torch.ones((), dtype=torch.float64)))
    return loss, lambda: loss.scale.fill_(3.0)


def array() -> tuple[Any, Callable[[], Any]]:
    scale = np.ones(1)
    return lambda h, y: float(scale[0]) * F.mse_loss(h, y), lambda: scale.fill(3.0)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        reduction,
        hook,
        hook_of_all,
        no_hook,
        keyword,
        keyword_within,
        keyword_of_two,
        number,
        buffer,
        array,
    ],
)
def test_a_loss_that_changes(
    make: Callable[[], tuple[Any, Callable[[], Any]]], affine: bool
) -> None:
    """With a model that is recognised by what it does, and with one that steps eagerly."""
    W = torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 1, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        return x @ W if affine else (x @ W).tanh()

    loss_fn, change = make()
    step = gdcore.train_step(model, loss_fn, torch.optim.SGD([W], lr=0.0))
    before = loss_fn(model(x), y).item()
    for _ in range(2):
        assert step(x, y).item() == pytest.approx(before, rel=1e-12)
    handle = change()
    try:
        after = loss_fn(model(x), y).item()
        assert after > 2 * before or 2 * after < before
        for _ in range(2):
            assert step(x, y).item() == pytest.approx(after, rel=1e-12)
    finally:
        if make is hook_of_all:
            handle.remove()
