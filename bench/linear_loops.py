"""Contenders for the whole training of a linear model, each from a new one."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from case import Case, Contender
from linear import Problem
from loops import BY_HAND, EAGER, FIT, NUMPY, Training, descent_case


def loop_contenders(p: Problem, epochs: int, options: Mapping[str, Any]) -> list[Contender]:
    """Whole trainings; those by hand start from copies of what ``nn.Linear`` draws."""
    make = functools.partial(nn.Linear, p.shape[1], p.y.shape[1])
    training = Training(make, nn.MSELoss(), p.x, p.y, p.lr, options)
    runs = {FIT: training.fit(epochs)}
    runs |= {name: training.eager(epochs, options) for name, options in EAGER.items()}
    runs[BY_HAND] = functools.partial(by_hand, p, epochs)
    runs[NUMPY] = functools.partial(in_numpy, p, p.start(), epochs)
    contenders = [Contender(name, run, reset=p.seed_start) for name, run in runs.items()]
    return [*contenders, replace(training, make=p.model).fit_alone(epochs)]


@torch.no_grad()
def by_hand(p: Problem, epochs: int) -> Any:
    x, y, rate = p.x, p.y, p.lr * 2 / p.y.numel()
    weight, bias = nn.Linear(x.shape[1], y.shape[1]).parameters()
    for _ in range(epochs):
        error = F.linear(x, weight, bias).sub_(y)
        loss = error.square().mean()
        weight.sub_(error.T @ x, alpha=rate)
        bias.sub_(error.sum(0), alpha=rate)
    return loss, weight, bias


def in_numpy(p: Problem, start: Any, epochs: int) -> Any:
    """For one output."""
    x, y, rate = p.x.numpy(), p.y.numpy().ravel(), p.lr * 2 / len(p.x)
    weight, bias = (value.copy() for value in start)
    for _ in range(epochs):
        error = x @ weight + bias - y
        loss = error @ error / len(error)
        weight -= rate * (error @ x)
        bias -= rate * error.sum()
    return loss, weight, bias


def fit_case(
    p: Problem,
    epochs: int,
    names: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    **case: Any,
) -> Case:
    """All contenders, or those of the given names.

    Args:
        options: Further arguments of ``gdcore.fit``.
        case: Of `descent_case`.
    """

    def contenders(epochs: int) -> list[Contender]:
        found = loop_contenders(p, epochs, options or {})
        return [one for one in found if names is None or one.name in names]

    arrays = (p.affine(), p.targets(), p.flat_start())
    return descent_case(contenders, epochs, *arrays, p.lr, mean=True, **case)
