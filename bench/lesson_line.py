"""The lesson ``linear_regression``: a line through three points, from zero."""

# The names W and b are the lesson's.

from __future__ import annotations

import functools
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
from jax_peer import linear, scan
from loops import BY_HAND, FEW, FIT, NUMPY, Run, Training, descent_case

SEED_LOOP = "the seed's loop"


def line() -> nn.Module:
    """A line at zero."""
    model = gdcore.nn.LinearRegression()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def seed_loop(x: Tensor, y: Tensor, lr: float, epochs: int) -> Run:
    """As the seed writes it, without printing."""

    def run() -> Any:
        W = torch.zeros(1, requires_grad=True)
        b = torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.SGD([W, b], lr=lr)
        for _ in range(epochs):
            hypothesis = x * W + b
            cost = torch.mean((hypothesis - y) ** 2)
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
        return cost, W, b

    return run


@torch.no_grad()
def by_hand(x: Tensor, y: Tensor, lr: float, epochs: int) -> Any:
    W, b = torch.zeros(1), torch.zeros(1)
    rate = lr * 2 / len(x)
    for _ in range(epochs):
        error = x * W + b - y
        cost = error.square().mean()
        W -= rate * (error * x).sum()
        b -= rate * error.sum()
    return cost, W, b


def in_numpy(x: Any, y: Any, lr: float, epochs: int) -> Any:
    W, b = np.zeros(1, np.float32), np.zeros(1, np.float32)
    rate = lr * 2 / len(x)
    for _ in range(epochs):
        error = x * W + b - y
        cost = error @ error / len(error)
        W -= rate * (error @ x)
        b -= rate * error.sum()
    return cost, W, b


def case(epochs: int, loops: Mapping[str, Mapping[str, bool]]) -> Case:
    entry = golden("linear_regression")
    x, y, lr = torch.FloatTensor(entry["x"]), torch.FloatTensor(entry["y"]), entry["lr"]
    training = Training(line, nn.MSELoss(), x, y, lr)

    def contenders(epochs: int) -> list[Contender]:
        runs = {FIT: training.fit(epochs)}
        for name, options in loops.items():
            runs[name] = training.eager(epochs, options)
        flat = (x.numpy().ravel(), y.numpy().ravel())
        runs |= {
            SEED_LOOP: seed_loop(x, y, lr, epochs),
            BY_HAND: functools.partial(by_hand, x, y, lr, epochs),
            NUMPY: functools.partial(in_numpy, *flat, lr, epochs),
        }
        return [*(Contender(*run) for run in runs.items()), training.fit_alone(epochs)]

    model, targets = Affine(x.numpy(), intercept=True), as_float64(y).ravel()
    scanned = scan(linear, [np.zeros((1, 1)), np.zeros(1)], x, y, lr, epochs)
    return descent_case(
        contenders,
        epochs,
        model,
        targets,
        np.zeros(2),
        lr,
        mean=True,
        at_end=scanned,
        few=FEW,
        missing=missing(JAX),
    )
