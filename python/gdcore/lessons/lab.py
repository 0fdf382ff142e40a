"""Seed 002: the line with raw tensors, then with an nn.Module and F.mse_loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

import gdcore.optim
from gdcore.functional import linear_mse_loss

from . import linear_regression, pictures, stories
from .golden import check_lines, golden, golden_settings
from .lesson import Lesson, Run, Settings, line_per_row
from .rounding import compare_versions


class LinearRegressionModel(nn.Module):
    """A model as a class: nn.Module holds its layers, forward applies them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


def new_model(settings: Settings) -> LinearRegressionModel:
    """The model as PyTorch starts it under the lesson's seed, or the one that was asked for."""
    own = golden("lab_module")["manual_seed"]
    torch.manual_seed(own if settings.seed is None else settings.seed)
    return LinearRegressionModel().to(settings.dtype)


def module_manual(settings: Settings) -> Run:
    x, y, lr = settings.x, settings.y, settings.lr
    W, b = (parameter.detach() for parameter in new_model(settings).parameters())
    run = Run()
    for epoch in range(settings.epochs):
        error = x * W + b - y
        cost = torch.mean(error**2)
        gradient_W = torch.sum(2 * error * (1 / len(x)) * x)
        gradient_b = torch.sum(2 * error * (1 / len(x)))
        W -= lr * gradient_W
        b -= lr * gradient_b
        if epoch % settings.every == 0:
            run.record(epoch, cost=cost, W=W, b=b)
    return run.finish(W=W, b=b, cost=cost)


def module_autograd(settings: Settings) -> Run:
    x, y = settings.x, settings.y
    model = new_model(settings)
    optimizer = optim.SGD(model.parameters(), lr=settings.lr)
    run = Run()
    for epoch in range(settings.epochs):
        prediction = model(x)
        cost = F.mse_loss(prediction, y)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        if epoch % settings.every == 0:
            W, b = model.parameters()
            run.record(epoch, cost=cost, W=W, b=b)
    return run.finish(W=model.linear.weight, b=model.linear.bias, cost=cost)


def module_fused(settings: Settings) -> Run:
    # The parts, in a loop of one's own: the loss with its gradient in one pass, and the update.
    x, y = settings.x, settings.y
    model = new_model(settings)
    W, b = model.parameters()
    optimizer = gdcore.optim.SGD(model.parameters(), lr=settings.lr)
    run, costs = Run(), []
    for epoch in range(settings.epochs):
        cost = linear_mse_loss(x, W, b, y)
        costs.append(cost.detach())
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        if epoch % settings.every == 0:
            run.record(epoch, cost=cost, W=W, b=b)
    run.costs = torch.stack(costs)
    return run.finish(W=W, b=b, cost=cost)


LAB_RAW = Lesson(
    name="lab_raw",
    title="seed 002's line with raw tensors",
    teaches="The same program as linear_regression on y = x, where W should end near 1 and b near "
    "0. Both start at zero and are declared as what is to be learned.",
    versions={
        "manual": linear_regression.manual,
        "autograd": linear_regression.autograd,
        "fused": linear_regression.fused,
    },
    settings=lambda: golden_settings("lab_raw", every=100),
    lines=line_per_row(linear_regression.LINE),
    check=check_lines("lab_raw"),
    compare=compare_versions(),
    draw=pictures.line_and_cost("y = x with raw tensors"),
    says=stories.line(linear_regression.start),
)

LAB_MODULE = Lesson(
    name="lab_module",
    title="seed 002's line as an nn.Module with F.mse_loss",
    teaches="A model as a class: nn.Module holds the parameters and starts them at random, so the "
    "descent begins elsewhere and ends at the same line. The fused version keeps the loop and "
    "takes gdcore's loss and optimizer as parts.",
    versions={"manual": module_manual, "autograd": module_autograd, "fused": module_fused},
    settings=lambda: golden_settings("lab_module", every=100),
    lines=line_per_row(linear_regression.LINE),
    check=check_lines("lab_module"),
    compare=compare_versions(),
    draw=pictures.line_and_cost("y = x as an nn.Module"),
    says=stories.line(lambda settings: list(new_model(settings).parameters())),
)
