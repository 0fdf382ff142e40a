"""Seed 003: sin(x) by a cubic polynomial; the gradient by hand, in NumPy and in PyTorch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn, optim

from gdcore import fit
from gdcore.nn import PolynomialRegression

from . import pictures, stories
from .golden import check_table, golden
from .lesson import Lesson, Lines, Run, Settings, numbers
from .rounding import compare_versions


def sine_settings(name: str, dtype: torch.dtype, lr: float) -> Settings:
    """2 000 points of a period of the sine."""
    x = torch.linspace(-math.pi, math.pi, 2000, dtype=dtype)
    return Settings(x=x, y=torch.sin(x), lr=lr, epochs=golden(name)["steps"], every=100)


def start(settings: Settings, name: str) -> list[Tensor]:
    """The coefficients of a run that ended with those the seed prints, or random ones."""
    if settings.seed is not None:
        return settings.start((), (), (), ())
    initial = golden(name)["initial_coefficients"]
    return [torch.tensor(value, dtype=settings.dtype) for value in initial]


def powers(settings: Settings, run: Run) -> Tensor:
    """The features of a cubic: 1, x, x^2, x^3."""
    return settings.x.double()[:, None] ** torch.arange(4)


def numpy_manual(settings: Settings) -> Run:
    x, y, learning_rate = settings.x.numpy(), settings.y.numpy(), settings.lr
    a, b, c, d = (value.numpy() for value in start(settings, "sine_numpy"))
    run = Run()
    for t in range(settings.epochs):
        y_pred = a + b * x + c * x**2 + d * x**3
        loss = np.square(y_pred - y).sum()
        if t % settings.every == settings.every - 1:
            run.record(t, cost=float(loss))
        grad_y_pred = 2.0 * (y_pred - y)
        grad_a = grad_y_pred.sum()
        grad_b = (grad_y_pred * x).sum()
        grad_c = (grad_y_pred * x**2).sum()
        grad_d = (grad_y_pred * x**3).sum()
        a = a - learning_rate * grad_a
        b = b - learning_rate * grad_b
        c = c - learning_rate * grad_c
        d = d - learning_rate * grad_d
    return run.finish(coefficients=[float(a), float(b), float(c), float(d)], cost=float(loss))


def numpy_autograd(settings: Settings) -> Run:
    return _autograd(settings, "sine_numpy")


def numpy_fused(settings: Settings) -> Run:
    return _fused(settings, "sine_numpy")


def torch_manual(settings: Settings) -> Run:
    x, y, learning_rate = settings.x, settings.y, settings.lr
    a, b, c, d = start(settings, "sine_torch")
    run = Run()
    for t in range(settings.epochs):
        y_pred = a + b * x + c * x**2 + d * x**3
        loss = torch.square(y_pred - y).sum()
        if t % settings.every == settings.every - 1:
            run.record(t, cost=loss)
        grad_y_pred = 2.0 * (y_pred - y)
        grad_a = grad_y_pred.sum()
        grad_b = (grad_y_pred * x).sum()
        grad_c = (grad_y_pred * x**2).sum()
        grad_d = (grad_y_pred * x**3).sum()
        a -= learning_rate * grad_a
        b -= learning_rate * grad_b
        c -= learning_rate * grad_c
        d -= learning_rate * grad_d
    return run.finish(coefficients=torch.stack([a, b, c, d]), cost=loss)


def torch_autograd(settings: Settings) -> Run:
    return _autograd(settings, "sine_torch")


def torch_fused(settings: Settings) -> Run:
    return _fused(settings, "sine_torch")


def _autograd(settings: Settings, name: str) -> Run:
    x, y = settings.x, settings.y
    a, b, c, d = (value.requires_grad_() for value in start(settings, name))
    optimizer = optim.SGD([a, b, c, d], lr=settings.lr)
    run = Run()
    for t in range(settings.epochs):
        y_pred = a + b * x + c * x**2 + d * x**3
        loss = (y_pred - y).pow(2).sum()
        if t % settings.every == settings.every - 1:
            run.record(t, cost=loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return run.finish(coefficients=torch.stack([a, b, c, d]), cost=loss)


def _fused(settings: Settings, name: str) -> Run:
    model = PolynomialRegression(degree=3).to(settings.dtype)
    model.load_state_dict({"coefficients": torch.stack(start(settings, name))})
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
    return run.finish(coefficients=model.coefficients, cost=history.loss[-1])


def cubic_lines(loss_format: str) -> Lines:
    """A line per recorded loss, and the polynomial that the run ends with."""

    def lines(run: Run, settings: Settings) -> list[str]:
        table = [f"{row.step} {loss_format.format(row.cost)}" for row in run.rows]
        if run.diverged is not None:
            return table
        a, b, c, d = numbers(run.final["coefficients"])
        return [*table, f"Result: y = {a} + {b} x + {c} x^2 + {d} x^3"]

    return lines


SINE_NUMPY = Lesson(
    name="sine_numpy",
    title="sin(x) by a cubic polynomial, gradient by hand in NumPy",
    teaches="NumPy knows nothing of gradients, and needs nothing: the forward pass, the "
    "derivative of the loss by each of four coefficients and the update are written out. "
    "A cubic comes close to a period of the sine.",
    versions={"manual": numpy_manual, "autograd": numpy_autograd, "fused": numpy_fused},
    settings=lambda: sine_settings("sine_numpy", torch.float64, golden("sine_numpy")["lr"]),
    lines=cubic_lines("{}"),
    check=check_table("sine_numpy"),
    compare=compare_versions(powers, "sum"),
    draw=pictures.fitted_curve("A cubic fitted to the sine, in NumPy", pictures.cubic),
    says=stories.cubic,
    has_table=True,
)

SINE_TORCH = Lesson(
    name="sine_torch",
    title="the same cubic in PyTorch tensors, gradient by hand",
    teaches="The NumPy program carries over to tensors line for line, in float32. Autograd then "
    "writes the four derivatives by itself, and gdcore forms the powers of x in registers.",
    versions={"manual": torch_manual, "autograd": torch_autograd, "fused": torch_fused},
    settings=lambda: sine_settings("sine_torch", torch.float32, golden("sine_torch")["lr"]),
    lines=cubic_lines("tensor({:.4f})"),
    check=check_table("sine_torch"),
    compare=compare_versions(powers, "sum"),
    draw=pictures.fitted_curve("A cubic fitted to the sine, in PyTorch", pictures.cubic),
    says=stories.cubic,
    has_table=True,
)
