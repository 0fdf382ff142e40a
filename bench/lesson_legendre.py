"""The lesson ``legendre``: a + b P3(c + d x) through 2 000 points of a sine."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import gdcore
from agreement import Array, Evaluation, as_float64
from available import JAX, missing
from case import Case, Contender
from gdcore.lessons.golden import golden
from gdcore.lessons.legendre import LegendrePolynomial3
from jax_peer import legendre as jax_legendre
from jax_peer import scan
from lesson_line import SEED_LOOP
from lesson_sine import points
from loops import BY_HAND, FEW, FIT, NUMPY, Training, descent_case


class LegendreCurve:
    """``a + b P3(u)`` with ``u = c + d x`` and ``P3(u) = (5 u^3 - 3 u) / 2``, in float64.

    Its parameters are a, b, c and d. Roundings are counted for any way to form it with at most
    eight operations after u.
    """

    def __init__(self, x: NDArray[Any]) -> None:
        self.x = x.astype(np.float64)
        self.rows = len(x)

    def evaluate(self, parameters: Array, rows: slice) -> Evaluation:
        a, b, c, d = parameters
        x = self.x[rows]
        u = c + d * x
        p3, slope = 0.5 * (5 * u**3 - 3 * u), 1.5 * (5 * u**2 - 1)
        du = 2 * (np.abs(c) + np.abs(d * x))
        dp3 = 8 * 0.5 * (5 * np.abs(u) ** 3 + 3 * np.abs(u)) + np.abs(slope) * du
        dslope = np.abs(b) * (8 * 1.5 * (5 * u**2 + 1) + 15 * np.abs(u) * du)
        jacobian = np.stack([np.ones_like(x), p3, b * slope, b * slope * x], axis=1)
        roundings = np.stack([np.zeros_like(x), dp3, dslope, dslope * np.abs(x)], axis=1)
        return Evaluation(a + b * p3, np.abs(a) + np.abs(b) * dp3, jacobian, roundings)

    def curvatures(self, parameters: Array, residuals: Array) -> tuple[float, float]:
        _, b, c, d = parameters
        u = c + d * self.x
        slope, bend = 1.5 * (5 * u**2 - 1), 15 * b * u
        jacobian = self.evaluate(parameters, slice(None)).jacobian
        second = np.zeros((4, 4))
        second[1, 2] = residuals @ slope
        second[1, 3] = residuals @ (slope * self.x)
        second[2, 3] = residuals @ (bend * self.x)
        second += second.T
        second[2, 2] = residuals @ bend
        second[3, 3] = residuals @ (bend * self.x**2)
        eigenvalues = np.linalg.eigvalsh(jacobian.T @ jacobian + second)
        return float(eigenvalues[0]), float(eigenvalues[-1])


class Legendre(nn.Module):
    """The curve as a module, with the seed's own ``autograd.Function``."""

    def __init__(self, start: list[float]) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Parameter(torch.tensor(value)) for value in start)

    def forward(self, x: Tensor) -> Any:
        P3: Any = LegendrePolynomial3.apply
        return self.a + self.b * P3(self.c + self.d * x)


def seed_loop(x: Tensor, y: Tensor, start: list[float], learning_rate: float, epochs: int) -> Any:
    """As the seed writes it, without printing."""
    parameters: Any = [torch.full((), value, requires_grad=True) for value in start]
    a, b, c, d = parameters
    for _ in range(epochs):
        P3: Any = LegendrePolynomial3.apply
        y_pred = a + b * P3(c + d * x)
        loss = (y_pred - y).pow(2).sum()
        loss.backward()
        with torch.no_grad():
            a -= learning_rate * a.grad
            b -= learning_rate * b.grad
            c -= learning_rate * c.grad
            d -= learning_rate * d.grad
            a.grad = None
            b.grad = None
            c.grad = None
            d.grad = None
    return loss, a, b, c, d


def by_hand(x: Any, y: Any, start: Any, lr: float, epochs: int) -> Any:
    """The same lines for tensors and for arrays; ``start`` holds four scalars of either."""
    a, b, c, d = start
    for _ in range(epochs):
        u = c + d * x
        square = u * u
        p3 = (2.5 * square - 1.5) * u
        error = a + b * p3 - y
        loss = error @ error
        grad = 2 * error
        grad_u = grad * (b * (7.5 * square - 1.5))
        a = a - lr * grad.sum()
        b = b - lr * (grad @ p3)
        c = c - lr * grad_u.sum()
        d = d - lr * (grad_u @ x)
    return loss, a, b, c, d


def case(epochs: int, loops: Mapping[str, Mapping[str, bool]]) -> Case:
    entry = golden("legendre")
    lr, start = entry["lr"], [entry["init"][name] for name in "abcd"]
    (x, y), sum_of_squares = points(), nn.MSELoss(reduction="sum")
    native = Training(gdcore.nn.LegendreRegression, sum_of_squares, x, y, lr)
    module = Training(functools.partial(Legendre, start), sum_of_squares, x, y, lr)

    def contenders(epochs: int) -> list[Contender]:
        runs = {FIT: native.fit(epochs)}
        for name, options in loops.items():
            runs[name] = module.eager(epochs, options)
        tensors = (x, y, torch.tensor(start))
        arrays = (x.numpy(), y.numpy(), torch.tensor(start).numpy())
        runs |= {
            SEED_LOOP: functools.partial(seed_loop, x, y, start, lr, epochs),
            BY_HAND: functools.partial(by_hand, *tensors, lr, epochs),
            NUMPY: functools.partial(by_hand, *arrays, lr, epochs),
        }
        return [Contender(*run) for run in runs.items()]

    targets, at_start = as_float64(y), as_float64(torch.tensor(start))
    curve = LegendreCurve(x.numpy())
    scanned = scan(jax_legendre, start, x, y, lr, epochs, mean=False)
    return descent_case(
        contenders,
        epochs,
        curve,
        targets,
        at_start,
        lr,
        mean=False,
        at_end=scanned,
        few=FEW,
        missing=missing(JAX),
    )
