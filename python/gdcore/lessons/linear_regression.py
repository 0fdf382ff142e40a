"""Seed 001: y = Wx + b by 2 000 epochs of SGD; after 4 hours of study, how many points?"""

from __future__ import annotations

import torch
from torch import Tensor, nn, optim

from gdcore import fit
from gdcore.nn import LinearRegression

from . import pictures, stories
from .agreement import Disagreement
from .golden import check_lines, golden, golden_settings
from .lesson import Lesson, Run, Settings, line_per_row, number
from .rounding import compare_versions
from .sayings import Saying, say

LINE = "Epoch {step:4d}/{last} W: {W:.3f}, b: {b:.3f} Cost: {cost:.6f}"


def manual(settings: Settings) -> Run:
    x, y, lr = settings.x, settings.y, settings.lr
    W, b = settings.start((1,), (1,))
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


def autograd(settings: Settings) -> Run:
    x, y = settings.x, settings.y
    W, b = (start.requires_grad_() for start in settings.start((1,), (1,)))
    optimizer = optim.SGD([W, b], lr=settings.lr)
    run = Run()
    for epoch in range(settings.epochs):
        hypothesis = x * W + b
        cost = torch.mean((hypothesis - y) ** 2)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        if epoch % settings.every == 0:
            run.record(epoch, cost=cost, W=W, b=b)
    return run.finish(W=W, b=b, cost=cost)


def fused(settings: Settings) -> Run:
    W, b = settings.start((1, 1), (1,))
    model = LinearRegression(1, 1).to(settings.dtype)
    model.load_state_dict({"weight": W, "bias": b})
    return fit_line(model, settings)


def fit_line(model: nn.Linear, settings: Settings) -> Run:
    """The whole loop in one call, from where the model's parameters are."""
    optimizer = optim.SGD(model.parameters(), lr=settings.lr)
    data = (settings.x, settings.y)
    run = Run()
    history = fit(
        model,
        nn.MSELoss(),
        optimizer,
        data,
        epochs=settings.epochs,
        record_every=settings.every,
        method="stepwise",
    )
    run.costs = history.loss
    W, b = history.parameters["weight"], history.parameters["bias"]
    for index, epoch in enumerate(history.recorded_epochs):
        run.record(epoch, cost=history.loss[epoch], W=W[index], b=b[index])
    return run.finish(W=model.weight, b=model.bias, cost=history.loss[-1])


def start(settings: Settings) -> list[Tensor]:
    """W and b before the first epoch."""
    return settings.start((1,), (1,))


def score(run: Run, hours: float) -> float:
    """The points that the line gives for so many hours of study."""
    return number(run.final["W"]) * hours + number(run.final["b"])


def check(backend: str, run: Run, lines: list[str]) -> Disagreement | None:
    found = check_lines("linear_regression")(backend, run, lines)
    hours, points = golden("linear_regression")["x"], golden("linear_regression")["y"]
    per_hour = points[0][0] / hours[0][0]
    if found is None and round(score(run, 4.0)) != 4 * per_hour:
        return Disagreement("score after 4 hours", str(4 * per_hour), str(score(run, 4.0)))
    return found


def answer(run: Run, settings: Settings) -> list[Saying]:
    if run.diverged is not None:
        return []
    points = score(run, 4.0)
    return [say("answer", score=f"{points:.3f}", points=f"{points:.0f}")]


LINEAR_REGRESSION = Lesson(
    name="linear_regression",
    title="y = Wx + b by 2 000 epochs of SGD: the score after 4 hours of study",
    teaches="The line that fits best is the one with the least mean squared error. Each epoch "
    "computes the cost and its gradient and moves W and b a little against it; zero_grad, "
    "backward and step are those three moves.",
    versions={"manual": manual, "autograd": autograd, "fused": fused},
    settings=lambda: golden_settings("linear_regression", every=100),
    lines=line_per_row(LINE),
    check=check,
    compare=compare_versions(),
    draw=pictures.line_and_cost("y = Wx + b, fitted", answer_at=4.0),
    says=stories.line(start),
    closing=answer,
)
