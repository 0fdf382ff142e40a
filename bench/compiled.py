"""The usual loop with its forward pass, loss and backward pass through ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from case import Contender

COMPILE = "compile"
LEFT_OUT = "left out of a quick run"


def compiled_loss(model: nn.Module, loss_fn: nn.MSELoss) -> Callable[[Tensor, Tensor], Any]:
    """Compiled at its first call, and not taken from a cache that an earlier run has filled."""
    torch._dynamo.reset()
    torch._inductor.config.force_disable_caches = True

    def loss_of(x: Tensor, y: Tensor) -> Any:
        return loss_fn(model(x), y)

    return torch.compile(loss_of, dynamic=False)


def step_contender(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    lr: float,
    outcome: Callable[[Any], Any],
    reset: Callable[[], None],
) -> Contender:
    """One step of the usual loop."""
    loss_of = compiled_loss(model, nn.MSELoss())
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)

    def step() -> Any:
        loss = loss_of(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Contender(COMPILE, step, outcome, reset, compiles=True)
