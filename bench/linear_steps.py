"""Contenders for one pass over a linear model: its gradient, and one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gdcore
from agreement import outcome as outcome_of
from case import Contender
from compiled import step_contender
from linear import Problem
from loops import BY_HAND, EAGER, NUMPY

PARTS = "gdcore, parts"


def gradient_contenders(p: Problem) -> list[Contender]:
    """Forward and backward: the loss, and the gradients in ``.grad``."""
    x, y = p.x, p.y
    weight, bias = p.model().parameters()

    def loss_backward(loss_of: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            weight.grad = bias.grad = None
            loss = loss_of()
            loss.backward()
            return loss

        return run

    @torch.no_grad()
    def by_hand() -> tuple[Tensor, Tensor, Tensor]:
        error = F.linear(x, weight, bias).sub_(y)
        loss = error.square().mean()
        error *= 2 / len(x)
        return loss, error.T @ x, error.sum(0)

    inputs, targets = x.numpy(), y.numpy().ravel()
    weights, intercept = p.start()

    def in_numpy() -> tuple[Any, ...]:
        error = inputs @ weights + intercept - targets
        loss = error @ error / len(error)
        error *= 2 / len(error)
        return loss, error @ inputs, error.sum()

    def in_grad(loss: Tensor) -> Any:
        return outcome_of(loss, weight.grad, bias.grad)

    fused = loss_backward(lambda: gdcore.functional.linear_mse_loss(x, weight, bias, y))
    eager = loss_backward(lambda: F.mse_loss(F.linear(x, weight, bias), y))
    return [
        Contender("gdcore.functional.linear_mse_loss", fused, in_grad),
        Contender("eager", eager, in_grad),
        Contender(BY_HAND, by_hand),
        Contender(NUMPY, in_numpy),
    ]


def step_contenders(p: Problem, *, compiled: bool) -> list[Contender]:
    """One step on the full batch, on a model and an optimizer that stay."""
    contenders = [_native_step(p), _native_step(p, "a function of x"), _parts_step(p)]
    contenders += [_eager_step(p, name, options) for name, options in EAGER.items()]
    contenders += [_by_hand_step(p), _numpy_step(p)]
    return [*contenders, _compiled_step(p)] if compiled else contenders


def _compiled_step(p: Problem) -> Contender:
    model, start = p.model(), p.model().state_dict()
    return step_contender(
        model,
        p.x,
        p.y,
        p.lr,
        lambda loss: outcome_of(loss, *model.parameters()),
        lambda: model.load_state_dict(start) and None,
    )


def _stepper(p: Problem, name: str, model: nn.Linear, step: Callable[[], Tensor]) -> Contender:
    start = p.model().state_dict()
    return Contender(
        name,
        step,
        lambda loss: outcome_of(loss, *model.parameters()),
        lambda: model.load_state_dict(start) and None,
    )


def _native_step(p: Problem, of: str | None = None) -> Contender:
    """A model that is known by its name, or a function that is known by what it does."""
    x, y, model = p.x, p.y, p.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=p.lr)
    predict = model if of is None else lambda x: F.linear(x, model.weight, model.bias)
    step = gdcore.train_step(predict, nn.MSELoss(), optimizer)
    name = "gdcore.train_step" if of is None else f"gdcore.train_step, {of}"
    return _stepper(p, name, model, lambda: step(x, y))


def _parts_step(p: Problem) -> Contender:
    x, y, model = p.x, p.y, p.model()
    optimizer = gdcore.optim.SGD(model.parameters(), lr=p.lr)

    def step() -> Tensor:
        loss = gdcore.functional.linear_mse_loss(x, model.weight, model.bias, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return _stepper(p, PARTS, model, step)


def _eager_step(p: Problem, name: str, options: dict[str, bool]) -> Contender:
    x, y, model, loss_fn = p.x, p.y, p.model(), nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=p.lr, **options)

    def step() -> Tensor:
        loss: Tensor = loss_fn(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return _stepper(p, name, model, step)


def _by_hand_step(p: Problem) -> Contender:
    x, y, model, rate = p.x, p.y, p.model(), p.lr * 2 / len(p.x)
    weight, bias = model.weight, model.bias

    @torch.no_grad()
    def step() -> Tensor:
        error = F.linear(x, weight, bias).sub_(y)
        loss = error.square().mean()
        weight.sub_(error.T @ x, alpha=rate)
        bias.sub_(error.sum(0), alpha=rate)
        return loss

    return _stepper(p, BY_HAND, model, step)


def _numpy_step(p: Problem) -> Contender:
    x, y, rate = p.x.numpy(), p.y.numpy().ravel(), p.lr * 2 / len(p.x)
    weight, bias = p.start()

    def step() -> Any:
        error = x @ weight + bias - y
        loss = error @ error / len(error)
        weight[:] -= rate * (error @ x)
        bias[:] -= rate * error.sum()
        return loss

    def reset() -> None:
        weight[:], bias[:] = p.start()

    return Contender(NUMPY, step, lambda loss: outcome_of(loss, weight, bias), reset)
