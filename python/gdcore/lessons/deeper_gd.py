"""Seed 000: y = Wx without bias; the gradient and the update by hand, then torch.optim.SGD."""

from __future__ import annotations

import torch
from torch import nn, optim

from gdcore import fit
from gdcore.nn import LinearRegression

from . import pictures, stories
from .golden import check_lines, golden_settings
from .lesson import Lesson, Run, Settings, line_per_row
from .rounding import compare_versions


def hand_written_manual(settings: Settings) -> Run:
    x, y, lr = settings.x, settings.y, settings.lr
    (W,) = settings.start((1,))
    run = Run()
    for epoch in range(settings.epochs):
        hypothesis = x * W
        cost = torch.mean((hypothesis - y) ** 2)
        gradient = torch.sum((W * x - y) * x)
        if epoch % settings.every == 0:
            run.record(epoch, cost=cost, W=W)
        W -= lr * gradient
    return run.finish(W=W, cost=cost)


def hand_written_autograd(settings: Settings) -> Run:
    x, y, lr = settings.x, settings.y, settings.lr
    (W,) = settings.start((1,))
    W.requires_grad_()
    run = Run()
    for epoch in range(settings.epochs):
        error = x * W - y
        cost = torch.mean(error**2)
        if epoch % settings.every == 0:
            run.record(epoch, cost=cost, W=W)
        # sum((Wx - y) x), the hand-written gradient, is that of half the sum of squares.
        (gradient,) = torch.autograd.grad(torch.sum(error**2) / 2, W)
        with torch.no_grad():
            W -= lr * gradient
    return run.finish(W=W, cost=cost)


def hand_written_fused(settings: Settings) -> Run:
    # The hand-written gradient is half of the sum's, so the sum is descended at half the rate.
    return _fit(settings, "sum", settings.lr / 2)


def sgd_manual(settings: Settings) -> Run:
    x, y, lr = settings.x, settings.y, settings.lr
    (W,) = settings.start((1,))
    run = Run()
    for epoch in range(settings.epochs):
        error = x * W - y
        cost = torch.mean(error**2)
        gradient = torch.sum(2 * error * (1 / len(x)) * x)
        if epoch % settings.every == 0:
            run.record(epoch, cost=cost, W=W)
        W -= lr * gradient
    return run.finish(W=W, cost=cost)


def sgd_autograd(settings: Settings) -> Run:
    x, y = settings.x, settings.y
    (W,) = settings.start((1,))
    optimizer = optim.SGD([W.requires_grad_()], lr=settings.lr)
    run = Run()
    for epoch in range(settings.epochs):
        hypothesis = x * W
        cost = torch.mean((hypothesis - y) ** 2)
        if epoch % settings.every == 0:
            run.record(epoch, cost=cost, W=W)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
    return run.finish(W=W, cost=cost)


def sgd_fused(settings: Settings) -> Run:
    return _fit(settings, "mean", settings.lr)


def _fit(settings: Settings, reduction: str, lr: float) -> Run:
    x, y = settings.x, settings.y
    (W,) = settings.start((1, 1))
    model = LinearRegression(1, 1, bias=False).to(settings.dtype)
    model.load_state_dict({"weight": W})
    loss_fn = nn.MSELoss(reduction=reduction)
    optimizer = optim.SGD(model.parameters(), lr=lr)
    run = Run()
    history = fit(
        model, loss_fn, optimizer, (x, y), epochs=settings.epochs, record_every=1, method="stepwise"
    )
    # The seed prints W before the update and the cost as a mean, whatever is descended.
    run.costs = history.loss / len(x) if reduction == "sum" else history.loss
    before = torch.cat([W, history.parameters["weight"].flatten()[:-1, None]])
    for epoch in range(0, settings.epochs, settings.every):
        run.record(epoch, cost=run.costs[epoch], W=before[epoch])
    return run.finish(W=model.weight, cost=run.costs[-1])


DEEPER_GD_MANUAL = Lesson(
    name="deeper_gd_manual",
    title="y = Wx, gradient and update by hand",
    teaches="The cost is a parabola over W, and its slope says which way is down: where it is "
    "negative W must grow, where it is positive W must shrink. Here slope and update are written "
    "by hand.",
    versions={
        "manual": hand_written_manual,
        "autograd": hand_written_autograd,
        "fused": hand_written_fused,
    },
    settings=lambda: golden_settings("deeper_gd_manual"),
    lines=line_per_row("Epoch {step:4d}/{last} W: {W:.3f}, Cost: {cost:.6f}"),
    check=check_lines("deeper_gd_manual"),
    compare=compare_versions(reduction="sum"),
    draw=pictures.parabola_and_cost("y = Wx, gradient by hand, lr {lr:g}"),
    says=stories.slope(half_of_the_sum=True),
)

DEEPER_GD_SGD = Lesson(
    name="deeper_gd_sgd",
    title="y = Wx by torch.optim.SGD",
    teaches="The same descent with PyTorch's parts: zero_grad, backward for the slope, step for "
    "the update. The mean's slope at lr 0.15 is the hand-written one at 0.1, so the tables agree.",
    versions={"manual": sgd_manual, "autograd": sgd_autograd, "fused": sgd_fused},
    settings=lambda: golden_settings("deeper_gd_sgd"),
    lines=line_per_row("Epoch {step:4d}/{last} W: {W:.3f} Cost: {cost:.6f}"),
    check=check_lines("deeper_gd_sgd"),
    compare=compare_versions(),
    draw=pictures.parabola_and_cost("y = Wx by SGD, lr {lr:g}"),
    says=stories.slope(half_of_the_sum=False),
)
