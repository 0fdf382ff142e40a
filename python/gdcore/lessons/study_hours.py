"""Seed 001: what the cost of a line is made of, for y = 13x + 1 and four students."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from gdcore.functional import linear_mse_loss

from . import pictures, stories
from .agreement import Disagreement, compare_digits, compare_within
from .golden import golden
from .lesson import Lesson, Run, Settings, number, numbers
from .rounding import compare_versions
from .sayings import Saying, say

SLOPE, OFFSET = 13.0, 1.0

# The seed prints the error of 4 hours as -9, but 42 - 53 is -11.
SLIP_HOURS, SLIP = 4, -9


def manual(settings: Settings) -> Run:
    x, y = settings.x, settings.y
    run = Run()
    predicted = SLOPE * x + OFFSET
    error = y - predicted
    cost = (error**2).sum() / len(x)
    gradient = [(-2 * (error * x).sum() / len(x)).item(), (-2 * error.sum() / len(x)).item()]
    run.record(0, cost=cost, predicted=predicted, error=error)
    return run.finish(cost=cost, gradient=gradient)


def autograd(settings: Settings) -> Run:
    x, y = settings.x, settings.y
    W = torch.tensor([[SLOPE]], dtype=settings.dtype, requires_grad=True)
    b = torch.tensor([OFFSET], dtype=settings.dtype, requires_grad=True)
    run = Run()
    predicted = F.linear(x, W, b)
    cost = F.mse_loss(predicted, y)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(cost, [W, b])])
    run.record(0, cost=cost, predicted=predicted, error=y - predicted)
    return run.finish(cost=cost, gradient=gradient)


def fused(settings: Settings) -> Run:
    x, y = settings.x, settings.y
    W = torch.tensor([[SLOPE]], dtype=settings.dtype, requires_grad=True)
    b = torch.tensor([OFFSET], dtype=settings.dtype, requires_grad=True)
    run = Run()
    # The cost and its gradient come from one pass, which keeps no predictions.
    cost = linear_mse_loss(x, W, b, y)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(cost, [W, b])])
    predicted = F.linear(x, W, b)
    run.record(0, cost=cost, predicted=predicted, error=y - predicted)
    return run.finish(cost=cost, gradient=gradient)


def settings() -> Settings:
    entry = golden("study_hours_errors")
    x = torch.tensor(entry["x"], dtype=torch.float32)[:, None]
    y = torch.tensor(entry["actual"], dtype=torch.float32)[:, None]
    return Settings(x=x, y=y, lr=0.0, epochs=1)


def lines(run: Run, settings: Settings) -> list[str]:
    if not run.rows:
        return []
    row = run.rows[0].values
    columns = {
        "hours(x)": settings.x.flatten().tolist(),
        "실제값": settings.y.flatten().tolist(),
        "예측값": numbers(row["predicted"]),
        "오차": numbers(row["error"]),
    }
    return [
        f"|{name}|" + "|".join(f"{value:g}" for value in values) + "|"
        for name, values in columns.items()
    ]


def closing(run: Run, settings: Settings) -> list[Saying]:
    by_slope, by_offset = (f"{value:g}" for value in numbers(run.final["gradient"]))
    cost = f"{number(run.final['cost']):g}"
    said = [say("cost_is", cost=cost, by_slope=by_slope, by_offset=by_offset)]
    hours = settings.x.flatten().tolist()
    errors = numbers(run.rows[0].values["error"])
    if SLIP_HOURS in hours and errors[hours.index(SLIP_HOURS)] == 42 - 53:
        said.append(say("slip", hours=SLIP_HOURS, slip=str(SLIP)))
    return said


def check(backend: str, run: Run, lines: list[str]) -> Disagreement | None:
    entry = golden("study_hours_errors")
    row = run.rows[0].values
    errors = [
        actual - predicted if (hours, error) == (SLIP_HOURS, SLIP) else error
        for hours, actual, predicted, error in zip(
            entry["x"], entry["actual"], entry["predicted"], entry["error"], strict=True
        )
    ]
    hours, n = entry["x"], len(errors)
    cost = sum(error**2 for error in errors) / n
    by_slope = -2 * sum(error * x for error, x in zip(errors, hours, strict=True)) / n
    by_offset = -2 * sum(errors) / n
    return (
        compare_digits("예측값", entry["predicted"], numbers(row["predicted"]))
        or compare_digits("오차", errors, numbers(row["error"]))
        # Four float32 terms of about 50, each rounded a few times, are good to 5e-5.
        or compare_within("cost", [cost], numbers(run.final["cost"]), 5e-5)
        or compare_within("slope", [by_slope, by_offset], numbers(run.final["gradient"]), 5e-5)
    )


STUDY_HOURS_ERRORS = Lesson(
    name="study_hours_errors",
    title="the errors of the line y = 13x + 1, and its cost",
    teaches="A line is judged by its errors, actual less predicted: their squares are averaged, so "
    "that errors of either sign count and large ones count most. The gradient says which way "
    "slope and offset would have to move.",
    versions={"manual": manual, "autograd": autograd, "fused": fused},
    settings=settings,
    lines=lines,
    check=check,
    compare=compare_versions(),
    draw=pictures.errors_of_a_line(SLOPE, OFFSET),
    says=stories.study(SLOPE, OFFSET),
    closing=closing,
    options=frozenset({"data"}),
)
