"""Seed 004: three features, with separate weights and with a matrix."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn, optim

from gdcore import fit
from gdcore.nn import LinearRegression

from . import pictures, stories
from .agreement import Disagreement, close_lines, compare_digits
from .golden import golden, golden_settings
from .lesson import Check, Lesson, Run, Settings, Value, number, numbers
from .rounding import compare_versions


def separate_manual(settings: Settings) -> Run:
    (x1, x2, x3), y, lr = settings.x.split(1, dim=1), settings.y, settings.lr
    parameters = w1, w2, w3, b = settings.start((1,), (1,), (1,), (1,))
    run = Run()
    for epoch in range(settings.epochs):
        error = x1 * w1 + x2 * w2 + x3 * w3 + b - y
        cost = torch.mean(error**2)
        slope = 2 * error * (1 / len(y))
        gradients = (slope * x1).sum(0), (slope * x2).sum(0), (slope * x3).sum(0), slope.sum(0)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            descend(parameter, gradient, lr)
        if epoch % settings.every == 0:
            run.record(epoch, cost=cost)
    return run.finish(w1=w1, w2=w2, w3=w3, b=b, cost=cost)


def separate_autograd(settings: Settings) -> Run:
    (x1, x2, x3), y = settings.x.split(1, dim=1), settings.y
    w1, w2, w3, b = (w.requires_grad_() for w in settings.start((1,), (1,), (1,), (1,)))
    optimizer = optim.SGD([w1, w2, w3, b], lr=settings.lr)
    run = Run()
    for epoch in range(settings.epochs):
        hypothesis = x1 * w1 + x2 * w2 + x3 * w3 + b
        cost = torch.mean((hypothesis - y) ** 2)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        if epoch % settings.every == 0:
            run.record(epoch, cost=cost)
    return run.finish(w1=w1, w2=w2, w3=w3, b=b, cost=cost)


def separate_fused(settings: Settings) -> Run:
    *weights, bias = settings.start((1,), (1,), (1,), (1,))
    model = LinearRegression(3, 1).to(settings.dtype)
    model.load_state_dict({"weight": torch.stack(weights, dim=1), "bias": bias})
    run, last_cost = fit_plane(model, settings)
    w1, w2, w3 = model.weight[0]
    return run.finish(w1=w1, w2=w2, w3=w3, b=model.bias, cost=last_cost)


def matrix_manual(settings: Settings) -> Run:
    x, y, lr = settings.x, settings.y, settings.lr
    W, b = settings.start((x.shape[1], 1), (1,))
    run = Run()
    for epoch in range(settings.epochs):
        error = x.matmul(W) + b - y
        cost = torch.mean(error**2)
        slope = 2 * error * (1 / len(y))
        descend(W, x.T.matmul(slope), lr)
        descend(b, slope.sum(0), lr)
        if epoch % settings.every == 0:
            run.record(epoch, cost=cost)
    return run.finish(W=W, b=b, cost=cost)


def matrix_autograd(settings: Settings) -> Run:
    x, y = settings.x, settings.y
    W, b = (start.requires_grad_() for start in settings.start((x.shape[1], 1), (1,)))
    optimizer = optim.SGD([W, b], lr=settings.lr)
    run = Run()
    for epoch in range(settings.epochs):
        hypothesis = x.matmul(W) + b
        cost = torch.mean((hypothesis - y) ** 2)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        if epoch % settings.every == 0:
            run.record(epoch, cost=cost)
    return run.finish(W=W, b=b, cost=cost)


def matrix_fused(settings: Settings) -> Run:
    features = settings.x.shape[1]
    W, b = settings.start((features, 1), (1,))
    model = LinearRegression(features, 1).to(settings.dtype)
    model.load_state_dict({"weight": W.T, "bias": b})
    run, last_cost = fit_plane(model, settings)
    return run.finish(W=model.weight, b=model.bias, cost=last_cost)


def descend(parameter: Tensor, gradient: Tensor, lr: float) -> None:
    """The update in place, as torch.optim.SGD does it: rounded once where the processor can.

    `parameter -= lr * gradient` rounds twice, and after 2 000 steps the costs differ in the
    fifth digit. For the same reason the gradients here are multiplied by 1 / n, as autograd
    differentiates a mean, and not divided by n.
    """
    parameter.add_(gradient, alpha=-lr)


def fit_plane(model: nn.Linear, settings: Settings) -> tuple[Run, Tensor]:
    """The whole loop in one call; the run with its costs, and the last cost."""
    optimizer = optim.SGD(model.parameters(), lr=settings.lr)
    data = (settings.x, settings.y)
    run = Run()
    history = fit(model, nn.MSELoss(), optimizer, data, epochs=settings.epochs, method="stepwise")
    run.costs = history.loss
    for epoch in range(0, settings.epochs, settings.every):
        run.record(epoch, cost=history.loss[epoch])
    return run, history.loss[-1]


def shown_cost(cost: float) -> str:
    """Four decimals, as PyTorch prints a tensor, or five digits where those are fewer.

    It is what float32 keeps of the cost: the residuals of targets about 200 are good to 2e-5.
    """
    return f"{cost:.4f}" if abs(cost) < 1 else f"{cost:#.5g}".rstrip(".")


def cost_line(epoch: int, last: int, cost: float) -> str:
    return f"Epoch {epoch:4d}/{last} Cost: {shown_cost(cost)}"


def lines(run: Run, settings: Settings) -> list[str]:
    """The costs, and at the end the parameters, as the seed prints them."""
    table = [cost_line(row.step, settings.epochs - 1, row.cost) for row in run.rows]
    ends = {name: value for name, value in run.final.items() if name != "cost"}
    return [*table, parameter_line(ends)] if run.diverged is None else table


def parameter_line(values: Mapping[str, Value]) -> str:
    return ", ".join(
        f"{name}: " + " ".join(f"{one:.4f}" for one in numbers(value))
        for name, value in values.items()
    )


def check(name: str) -> Check:
    """The golden costs and parameters: to their digits, and fused as far as they are printed."""

    def check(backend: str, run: Run, lines: list[str]) -> Disagreement | None:
        entry = golden(name)
        ends = {key: value for key, value in entry["final"].items() if key != "loss"}
        table = [
            cost_line(index * entry["every"], entry["epochs"] - 1, loss)
            for index, loss in enumerate(entry["losses"])
        ]
        found = close_lines([*table, parameter_line(ends)], lines)
        if found or backend == "fused":
            return found
        costs = [row.cost for row in run.rows]
        last = [number(run.final["cost"])]
        found = compare_digits("cost", entry["losses"], costs) or (
            compare_digits("last cost", [entry["final"]["loss"]], last)
        )
        for key, value in ends.items():
            found = found or compare_digits(key, numbers(value), numbers(run.final[key]))
        return found

    return check


MULTIVARIATE_SEPARATE = Lesson(
    name="multivariate_separate",
    title="three features, three separate weights",
    teaches="With three scores per student the hypothesis is w1 x1 + w2 x2 + w3 x3 + b, each "
    "weight a tensor of its own. It works, and would be a nuisance with a thousand features.",
    versions={
        "manual": separate_manual,
        "autograd": separate_autograd,
        "fused": separate_fused,
    },
    settings=lambda: golden_settings("multivariate_separate", every=100),
    lines=lines,
    check=check("multivariate_separate"),
    compare=compare_versions(),
    draw=pictures.cost_and_predictions("Three separate weights"),
    says=stories.plane,
    features=3,
)

MULTIVARIATE_MATRIX = Lesson(
    name="multivariate_matrix",
    title="the same as one matrix product, for any number of features",
    teaches="The three products and their sum are one matrix product, x.matmul(W) + b, for any "
    "number of features, and faster. The seed's table has one number changed here (80 for 90), so "
    "its costs are others.",
    versions={"manual": matrix_manual, "autograd": matrix_autograd, "fused": matrix_fused},
    settings=lambda: golden_settings("multivariate_matrix", every=100),
    lines=lines,
    check=check("multivariate_matrix"),
    compare=compare_versions(),
    draw=pictures.cost_and_predictions("The weights as a matrix"),
    says=stories.plane,
    features=None,
)
