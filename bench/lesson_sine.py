"""The lesson ``sine_torch``: a cubic through 2 000 points of a sine."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gdcore
from agreement import Affine, as_float64
from available import JAX, missing
from case import Case, Contender
from gdcore.lessons.golden import golden
from jax_peer import polynomial as jax_polynomial
from jax_peer import scan
from lesson_line import SEED_LOOP
from loops import BY_HAND, FEW, FIT, NUMPY, Run, Training, descent_case


def points() -> tuple[Tensor, Tensor]:
    """2 000 points of a period of the sine."""
    x = torch.linspace(-math.pi, math.pi, 2000)
    return x, torch.sin(x)


@torch.no_grad()
def seed_loop(x: Tensor, y: Tensor, start: Tensor, learning_rate: float, epochs: int) -> Any:
    """As the seed writes it, without printing."""
    a, b, c, d = start.clone()
    for _ in range(epochs):
        y_pred = a + b * x + c * x**2 + d * x**3
        loss = torch.square(y_pred - y).sum()
        grad_y_pred = 2.0 * (y_pred - y)
        grad_a = grad_y_pred.sum()
        grad_b = (grad_y_pred * x).sum()
        grad_c = (grad_y_pred * x**2).sum()
        grad_d = (grad_y_pred * x**3).sum()
        a -= learning_rate * grad_a
        b -= learning_rate * grad_b
        c -= learning_rate * grad_c
        d -= learning_rate * grad_d
    return loss, a, b, c, d


def by_hand(columns: Any, y: Any, start: Any, lr: float, epochs: int) -> Any:
    """On the powers of x as columns; the same lines for tensors and for arrays."""
    coefficients = start + 0
    for _ in range(epochs):
        error = columns @ coefficients - y
        loss = error @ error
        coefficients -= 2 * lr * (error @ columns)
    return loss, coefficients


def bias_first(run: Run) -> Run:
    """A Linear's weight and bias in ascending powers."""

    def reordered() -> Any:
        loss, weight, bias = run()
        return loss, bias, weight

    return reordered


def case(epochs: int, loops: Mapping[str, Mapping[str, bool]]) -> Case:
    entry = golden("sine_torch")
    lr, start = entry["lr"], torch.tensor(entry["initial_coefficients"])
    (x, y), sum_of_squares = points(), nn.MSELoss(reduction="sum")
    powers = x.unsqueeze(-1).pow(torch.tensor([1, 2, 3]))
    columns = torch.cat([torch.ones(len(x), 1), powers], 1)

    def polynomial() -> nn.Module:
        model = gdcore.nn.PolynomialRegression(3)
        with torch.no_grad():
            model.coefficients.copy_(start)
        return model

    def sequential() -> nn.Module:
        linear = nn.Linear(3, 1)
        with torch.no_grad():
            linear.bias.copy_(start[:1])
            linear.weight.copy_(start[None, 1:])
        return nn.Sequential(linear, nn.Flatten(0, 1))

    on_points = Training(polynomial, sum_of_squares, x, y, lr)
    on_powers = Training(sequential, sum_of_squares, powers, y, lr)

    def contenders(epochs: int) -> list[Contender]:
        runs = {
            FIT: on_points.fit(epochs),
            "gdcore, nn model": bias_first(on_powers.fit(epochs)),
        }
        for name, options in loops.items():
            loop = on_powers.eager(epochs, options)
            runs[name] = bias_first(loop)
        arrays = (columns.numpy(), y.numpy(), start.numpy())
        runs |= {
            SEED_LOOP: functools.partial(seed_loop, x, y, start, lr, epochs),
            BY_HAND: functools.partial(by_hand, columns, y, start, lr, epochs),
            NUMPY: functools.partial(by_hand, *arrays, lr, epochs),
        }
        return [Contender(*run) for run in runs.items()]

    features = x.double().numpy()[:, None] ** np.arange(4)
    model = Affine(features, intercept=False, roundings=3)
    targets, at_start = as_float64(y), as_float64(start)
    scanned = scan(jax_polynomial, [start.numpy()], x, y, lr, epochs, mean=False)
    return descent_case(
        contenders,
        epochs,
        model,
        targets,
        at_start,
        lr,
        mean=False,
        at_end=scanned,
        few=FEW,
        missing=missing(JAX),
    )
