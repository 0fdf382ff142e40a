"""Seed 001: a learning rate that is too high, and one that is too low."""

from __future__ import annotations

import torch
from torch import nn, optim

from gdcore import DivergenceError, fit
from gdcore.nn import LinearRegression

from . import pictures, stories
from .agreement import Disagreement, close_lines, compare_digits
from .golden import golden
from .lesson import Lesson, Run, Settings
from .multivariate import shown_cost
from .rounding import compare_versions

TOO_HIGH, TOO_LOW = "too high", "too low"


def manual(settings: Settings) -> Run:
    x, y = settings.x, settings.y
    run, ends, costs = Run(), [], []
    for series, lr in settings.rates.items():
        (W,) = settings.start((1,))
        for epoch in range(settings.epochs):
            error = x * W - y
            cost = torch.mean(error**2)
            if epoch % settings.every == 0:
                run.record(epoch, series, cost=cost, W=W)
            W -= lr * torch.sum(2 * error * (1 / len(x)) * x)
        ends.append(W.item())
        costs.append(cost.item())
    return run.finish(W=ends, cost=costs)


def autograd(settings: Settings) -> Run:
    x, y = settings.x, settings.y
    run, ends, costs = Run(), [], []
    for series, lr in settings.rates.items():
        (W,) = settings.start((1,))
        optimizer = optim.SGD([W.requires_grad_()], lr=lr)
        for epoch in range(settings.epochs):
            hypothesis = x * W
            cost = torch.mean((hypothesis - y) ** 2)
            if epoch % settings.every == 0:
                run.record(epoch, series, cost=cost, W=W)
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
        ends.append(W.item())
        costs.append(cost.item())
    return run.finish(W=ends, cost=costs)


def fused(settings: Settings) -> Run:
    x, y = settings.x, settings.y
    run, ends, costs = Run(), [], []
    for series, lr in settings.rates.items():
        (W,) = settings.start((1, 1))
        model = LinearRegression(1, 1, bias=False).to(settings.dtype)
        model.load_state_dict({"weight": W})
        optimizer = optim.SGD(model.parameters(), lr=lr)
        try:
            history = fit(
                model,
                nn.MSELoss(),
                optimizer,
                (x, y),
                epochs=settings.epochs,
                record_every=1,
                method="stepwise",
            )
        except DivergenceError as error:
            # Its history ends with the first cost that is not finite.
            history = error.history
            run.diverged = run.diverged or error.epoch
        before = torch.cat([W, history.parameters["weight"].flatten()[:, None]])
        for epoch in range(0, len(history.loss), settings.every):
            run.record(epoch, series, cost=history.loss[epoch], W=before[epoch])
        ends.append(model.weight.item())
        costs.append(history.loss[-1].item())
    return run.finish(W=ends, cost=costs)


def settings() -> Settings:
    """Two rates on y = Wx; a rate that is asked for takes the place of both."""
    entry = golden("learning_rate")
    high, low = entry["too_high"]["lr"], entry["too_low"]["lr"]
    return Settings(
        x=torch.tensor(entry["x"], dtype=torch.float32),
        y=torch.tensor(entry["y"], dtype=torch.float32),
        lr=high,
        epochs=entry["epochs"],
        named_rates={TOO_HIGH: high, TOO_LOW: low},
    )


def cost_line(epoch: int, last: int, cost: float) -> str:
    return f"Epoch {epoch:4d}/{last} Cost: {shown_cost(cost)}"


def lines(run: Run, settings: Settings) -> list[str]:
    """Each rate, and its costs."""
    shown = []
    for series, lr in settings.rates.items():
        shown.append(f"lr {lr:g}:" if series == f"{lr:g}" else f"lr {lr:g}, {series}:")
        shown += [cost_line(row.step, settings.epochs - 1, row.cost) for row in run.series(series)]
    return shown


def check(backend: str, run: Run, lines: list[str]) -> Disagreement | None:
    entry = golden("learning_rate")
    series = {TOO_HIGH: entry["too_high"], TOO_LOW: entry["too_low"]}
    expected = []
    for name, values in series.items():
        expected.append(f"lr {values['lr']:g}, {name}:")
        expected += [
            cost_line(epoch, entry["epochs"] - 1, cost)
            for epoch, cost in enumerate(values["costs"])
        ]
    found = close_lines(expected, lines)
    if found or backend == "fused":
        return found
    for name, values in series.items():
        costs = [row.cost for row in run.series(name)]
        found = found or compare_digits(f"{name}, cost", values["costs"], costs)
    return found


LEARNING_RATE = Lesson(
    name="learning_rate",
    title="a learning rate too high, where the cost grows, and too low, where it crawls",
    teaches="A step is the gradient times the learning rate. Too high a rate overshoots the "
    "minimum by more than it was off, and the cost grows at every epoch; too low a rate hardly "
    "moves.",
    versions={"manual": manual, "autograd": autograd, "fused": fused},
    settings=settings,
    lines=lines,
    check=check,
    compare=compare_versions(),
    draw=pictures.rates,
    says=stories.slope(half_of_the_sum=False),
)
