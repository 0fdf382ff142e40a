"""Seed 004: three features as nn.Linear(3, 1) in a class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from . import pictures, stories
from .golden import golden, golden_settings
from .lesson import Lesson, Run, Settings
from .multivariate import check, descend, fit_plane, lines
from .rounding import compare_versions


class MultivariateLinearRegressionModel(nn.Module):
    """Three features, one output."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


def new_model(settings: Settings) -> MultivariateLinearRegressionModel:
    """The model as PyTorch starts it under the lesson's seed, or the one that was asked for."""
    own = golden("multivariate_nn")["manual_seed"]
    torch.manual_seed(own if settings.seed is None else settings.seed)
    return MultivariateLinearRegressionModel(settings.x.shape[1]).to(settings.dtype)


def manual(settings: Settings) -> Run:
    x, y, lr = settings.x, settings.y, settings.lr
    W, b = (parameter.detach() for parameter in new_model(settings).parameters())
    run = Run()
    for epoch in range(settings.epochs):
        error = x @ W.T + b - y
        cost = torch.mean(error**2)
        slope = 2 * error * (1 / len(y))
        descend(W, slope.T @ x, lr)
        descend(b, slope.sum(0), lr)
        if epoch % settings.every == 0:
            run.record(epoch, cost=cost)
    return run.finish(weight=W, bias=b, cost=cost)


def autograd(settings: Settings) -> Run:
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
            run.record(epoch, cost=cost)
    return run.finish(weight=model.linear.weight, bias=model.linear.bias, cost=cost)


def fused(settings: Settings) -> Run:
    model = new_model(settings).linear
    run, last_cost = fit_plane(model, settings)
    return run.finish(weight=model.weight, bias=model.bias, cost=last_cost)


MULTIVARIATE_NN = Lesson(
    name="multivariate_nn",
    title="three features as nn.Linear(3, 1) in a class of one's own",
    teaches="Most models are written as a class with its layers and a forward. Starting from "
    "random weights, 2 000 epochs bring the cost down to 0.2.",
    versions={"manual": manual, "autograd": autograd, "fused": fused},
    settings=lambda: golden_settings("multivariate_nn", every=100),
    lines=lines,
    check=check("multivariate_nn"),
    compare=compare_versions(),
    draw=pictures.cost_and_predictions("nn.Linear(3, 1)"),
    says=stories.plane,
    features=None,
)
