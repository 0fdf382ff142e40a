"""Seed 003: sin(x) by a + b P3(c + d x), with a custom autograd.Function for P3."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn, optim

from gdcore import fit
from gdcore.nn import LegendreRegression

from . import pictures, stories
from .agreement import Disagreement, compare_within
from .golden import check_table, golden
from .lesson import Lesson, Run, Settings, all_finite, number
from .rounding import compare_versions
from .sine import sine_settings


class LegendrePolynomial3(torch.autograd.Function):
    """P3(x) = (5 x^3 - 3 x) / 2 with its derivative, as the seed defines it."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.save_for_backward(input)
        return 0.5 * (5 * input**3 - 3 * input)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        (input,) = ctx.saved_tensors
        gradient: Tensor = grad_output * 1.5 * (5 * input**2 - 1)
        return gradient


def start(settings: Settings) -> list[Tensor]:
    """The seed's a, b, c, d; near them, where the curve can be fitted, when a seed is given."""
    init = golden("legendre")["init"]
    own = [torch.tensor(init[name], dtype=settings.dtype) for name in "abcd"]
    return [o + r / 10 for o, r in zip(own, settings.start((), (), (), ()), strict=True)]


def manual(settings: Settings) -> Run:
    x, y, learning_rate = settings.x, settings.y, settings.lr
    a, b, c, d = start(settings)
    run = Run()
    for t in range(settings.epochs):
        u = c + d * x
        p3 = 0.5 * (5 * u**3 - 3 * u)
        error = a + b * p3 - y
        loss = error.pow(2).sum()
        if t % settings.every == settings.every - 1:
            run.record(t, cost=loss)
        grad_y_pred = 2.0 * error
        grad_u = grad_y_pred * b * 1.5 * (5 * u**2 - 1)
        a -= learning_rate * grad_y_pred.sum()
        b -= learning_rate * (grad_y_pred * p3).sum()
        c -= learning_rate * grad_u.sum()
        d -= learning_rate * (grad_u * x).sum()
    return run.finish(a=a, b=b, c=c, d=d, cost=loss)


def autograd(settings: Settings) -> Run:
    x, y, learning_rate = settings.x, settings.y, settings.lr
    a, b, c, d = (value.requires_grad_() for value in start(settings))
    run = Run()
    for t in range(settings.epochs):
        P3 = LegendrePolynomial3.apply
        y_pred = a + b * P3(c + d * x)  # type: ignore[no-untyped-call]
        loss = (y_pred - y).pow(2).sum()
        if t % settings.every == settings.every - 1:
            run.record(t, cost=loss)
        loss.backward()
        with torch.no_grad():
            for parameter in (a, b, c, d):
                parameter -= learning_rate * parameter.grad  # type: ignore[operator]
                parameter.grad = None
    return run.finish(a=a, b=b, c=c, d=d, cost=loss)


def fused(settings: Settings) -> Run:
    model = LegendreRegression().to(settings.dtype)
    model.load_state_dict(dict(zip("abcd", start(settings), strict=True)))
    optimizer = optim.SGD(model.parameters(), lr=settings.lr)
    loss_fn = nn.MSELoss(reduction="sum")
    run = Run()
    history = fit(
        model,
        loss_fn,
        optimizer,
        (settings.x, settings.y),
        epochs=settings.epochs,
        method="stepwise",
    )
    run.costs = history.loss
    for t in range(settings.every - 1, settings.epochs, settings.every):
        run.record(t, cost=history.loss[t])
    return run.finish(a=model.a, b=model.b, c=model.c, d=model.d, cost=history.loss[-1])


def lines(run: Run, settings: Settings) -> list[str]:
    table = [f"{row.step} {row.cost}" for row in run.rows]
    if run.diverged is not None:
        return table
    a, b, c, d = (run.final[name] for name in "abcd")
    return [*table, f"Result: y = {a} + {b} * P3({c} + {d} x)"]


def check(backend: str, run: Run, lines: list[str]) -> Disagreement | None:
    found = check_table("legendre")(backend, run, lines)
    if found:
        return found
    entry = golden("legendre")
    relative = entry["table_relative_tolerance"]
    ends = [entry["final"]["b"], entry["final"]["d"]]
    got = [number(run.final["b"]), number(run.final["d"])]
    offsets = [number(run.final["a"]), number(run.final["c"])]
    return compare_within("final b, d", ends, got, relative) or compare_within(
        "final a, c", [0.0, 0.0], offsets, 1e-7
    )


def jacobian(settings: Settings, run: Run) -> Tensor:
    """The derivative of a + b P3(c + d x) by a, b, c, d where the run ends."""
    x = settings.x.double()
    ends = run.final if all_finite(run.final) else golden("legendre")["init"]
    b, c, d = (number(ends[name]) for name in "bcd")
    u = c + d * x
    slope = b * 1.5 * (5 * u**2 - 1)
    return torch.stack([torch.ones_like(x), 0.5 * (5 * u**3 - 3 * u), slope, slope * x], 1)


LEGENDRE = Lesson(
    name="legendre",
    title="sin(x) by a + b P3(c + d x), with an autograd Function of one's own",
    teaches="An operation of one's own is two functions: forward computes the output, backward "
    "turns the gradient by the output into that by the input. This model is not linear in its "
    "parameters, so every step passes over the data.",
    versions={"manual": manual, "autograd": autograd, "fused": fused},
    settings=lambda: sine_settings("legendre", torch.float32, golden("legendre")["lr"]),
    lines=lines,
    check=check,
    compare=compare_versions(jacobian, "sum", quadratic=False),
    draw=pictures.fitted_curve("a + b P3(c + d x) fitted to the sine", pictures.legendre),
    says=stories.legendre,
    has_table=True,
)
