"""Seed 004: the line as nn.Linear(1, 1) with F.mse_loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn, optim

from . import linear_regression, pictures, stories
from .agreement import Disagreement, close_lines, compare_digits
from .golden import golden, golden_settings
from .lesson import Lesson, Run, Settings, number
from .rounding import compare_versions


def new_model(settings: Settings) -> nn.Linear:
    """The layer as PyTorch starts it under the lesson's seed, or the one that was asked for."""
    own = golden("nn_linear")["manual_seed"]
    torch.manual_seed(own if settings.seed is None else settings.seed)
    return nn.Linear(1, 1).to(settings.dtype)


def manual(settings: Settings) -> Run:
    x, y, lr = settings.x, settings.y, settings.lr
    W, b = (parameter.detach() for parameter in new_model(settings).parameters())
    run = Run()
    for epoch in range(settings.epochs):
        error = x @ W.T + b - y
        cost = torch.mean(error**2)
        gradient = 2 * error * (1 / len(x))
        W -= lr * gradient.T @ x
        b -= lr * gradient.sum(0)
        if epoch % settings.every == 0:
            run.record(epoch, cost=cost, W=W, b=b)
    return run.finish(W=W, b=b, cost=cost)


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
            run.record(epoch, cost=cost, W=model.weight, b=model.bias)
    return run.finish(W=model.weight, b=model.bias, cost=cost)


def fused(settings: Settings) -> Run:
    return linear_regression.fit_line(new_model(settings), settings)


def lines(run: Run, settings: Settings) -> list[str]:
    """The parameters before training, and the loss and parameters after, as the seed prints.

    Three digits of the loss: in float32 its residuals, about 5e-4, are good to 7e-7 (12 u).
    """
    model = new_model(settings)
    start = (model.weight.item(), model.bias.item())
    if run.diverged is not None:
        return ["weight: {:.4f}, bias: {:.4f}".format(*start)]
    W, b, cost = (number(run.final[name]) for name in ("W", "b", "cost"))
    return [
        "weight: {:.4f}, bias: {:.4f}".format(*start),
        f"loss: {cost:.2e}",
        f"weight: {W:.4f}, bias: {b:.4f}",
    ]


def check(backend: str, run: Run, lines: list[str]) -> Disagreement | None:
    init, final = golden("nn_linear")["init"], golden("nn_linear")["final"]
    expected = [
        f"weight: {init['weight']:.4f}, bias: {init['bias']:.4f}",
        f"loss: {final['loss']:.2e}",
        f"weight: {final['weight']:.4f}, bias: {final['bias']:.4f}",
    ]
    found = close_lines(expected, lines)
    if found or backend == "fused":
        return found
    ends = [number(run.final["W"]), number(run.final["b"])]
    return compare_digits("final loss", [final["loss"]], [number(run.final["cost"])]) or (
        compare_digits("final parameter", [final["weight"], final["bias"]], ends)
    )


NN_LINEAR = Lesson(
    name="nn_linear",
    title="the line as nn.Linear(1, 1) with F.mse_loss",
    teaches="PyTorch has the line as nn.Linear and the cost as F.mse_loss, and starts the "
    "parameters at random. The training loop stays as it was; gdcore.fit takes the layer as it is.",
    versions={"manual": manual, "autograd": autograd, "fused": fused},
    settings=lambda: golden_settings("nn_linear", every=100),
    lines=lines,
    check=check,
    compare=compare_versions(),
    draw=pictures.line_and_cost("nn.Linear(1, 1) on y = 2x"),
    says=stories.line(lambda settings: list(new_model(settings).parameters())),
)
