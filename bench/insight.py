"""What is known before training: many runs at once, and how the loss bends."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gdcore
import jax_peer
from agreement import Expected, Outcome, as_float64, outcome
from available import JAX, missing
from case import Case, Check, Contender, Planned
from linear import Problem
from linear_loops import loop_contenders
from loops import BY_HAND
from recognised import expected_long

SUITE = "insight"
SWEEP = (100_000, 64), 1000, 1000
QUICK_SWEEP = (10_000, 16), 100, 200
CURVATURE, QUICK_CURVATURE = (100_000, 64), (10_000, 32)
# Of contenders that pass over the rows in each epoch: their epochs, and how many of the runs they
# do at once. Of the eager loop it is one.
FEW, FEW_RUNS = 1, 100
SLOWEST, FASTEST = 1e-3, 0.3


def sweep_name(size: tuple[int, int], runs: int, epochs: int) -> str:
    return f"{size}: {runs} runs of {epochs} epochs"


SWEEP_NAME = sweep_name(*SWEEP)


def cases(quick: bool) -> Iterator[Planned]:
    chosen = QUICK_SWEEP if quick else SWEEP
    yield Planned(SUITE, sweep_name(*chosen), functools.partial(sweep_case, *chosen), 2.0)
    size = QUICK_CURVATURE if quick else CURVATURE
    yield Planned(SUITE, f"{size}: curvature", functools.partial(curvature_case, *size))


def checked(runs: int) -> list[int]:
    """The runs that are compared: the slowest, one between, the fastest."""
    return [0, runs // 2, runs - 1]


def of_runs(p: Problem, rates: Sequence[float], epochs: int) -> Expected:
    """The parameters of those runs, one after the other."""
    found = [expected_long(replace(p, lr=rates[run]), epochs) for run in checked(len(rates))]
    values = np.concatenate([one.values for one in found])
    return Expected(None, 0.0, values, np.concatenate([one.errors for one in found]))


def sweep(p: Problem, rates: Sequence[float], epochs: int) -> Contender:
    model = p.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=p.lr)

    def run() -> Any:
        return gdcore.sweep(
            model, nn.MSELoss(), optimizer, (p.x, p.y), lr=list(rates), epochs=epochs
        )

    def found(runs: Any) -> Outcome:
        one = [runs[index].parameters for index in checked(len(rates))]
        return outcome(None, *(value for parameters in one for value in parameters.values()))

    return Contender("gdcore.sweep", run, found)


def by_hand(p: Problem, rates: Sequence[float], epochs: int) -> Contender:
    """All runs in two matrix products an epoch."""
    x, y, n = p.x, p.y, len(p.x)
    step = torch.tensor(rates) * 2 / n
    start = [torch.from_numpy(value) for value in p.start()]

    @torch.no_grad()
    def run() -> Any:
        weight, bias = start[0][:, None].repeat(1, len(rates)), start[1].repeat(len(rates))
        for _ in range(epochs):
            error = torch.addmm(bias, x, weight).sub_(y)
            losses = torch.linalg.vector_norm(error, dim=0).square_().div_(n)
            weight -= step * (x.T @ error)
            bias -= step * error.sum(0)
        return losses, weight, bias

    return Contender(BY_HAND, run, functools.partial(_of_columns, len(rates)))


def _of_columns(runs: int, returned: Any) -> Outcome:
    """What is (d, runs) and (runs,), as it stands in the other's parameters."""
    _, weight, bias = map(as_float64, returned)
    columns = checked(runs)
    return outcome(None, *(part for run in columns for part in (weight[:, run], bias[run])))


def in_jax(p: Problem, rates: Sequence[float], epochs: int) -> list[Contender]:
    start = [as_float64(parameter) for parameter in p.model().parameters()]
    contenders = jax_peer.sweep(start, p.x, p.y, rates, epochs)
    columns = checked(len(rates))

    def found(returned: Any) -> Outcome:
        _, weight, bias = map(as_float64, returned)
        return outcome(None, *(part for run in columns for part in (weight[run], bias[run])))

    return [replace(one, outcome=found) for one in contenders]


def sweep_case(size: tuple[int, int], runs: int, epochs: int) -> Case:
    """A time is that of one epoch of one run."""
    p = Problem.random(*size, seed=7)
    rates = np.geomspace(SLOWEST, FASTEST, runs).tolist()
    ours = sweep(p, rates, epochs)
    (eager,) = (one for one in loop_contenders(p, FEW, {}) if one.name == "eager")
    some = rates[:: runs // FEW_RUNS]
    together = [by_hand(p, some, FEW), *in_jax(p, some, FEW)]
    checks = [
        Check([ours], 1, of_runs(p, rates, epochs), f"at epoch {epochs}"),
        Check([eager], 1, expected_long(p, FEW), f"at epoch {FEW}"),
        Check(together, 1, of_runs(p, some, FEW), f"at epoch {FEW}"),
    ]
    contenders = [
        ours,
        replace(eager, units=FEW),
        *(replace(one, units=FEW * len(some)) for one in together),
    ]
    return Case(contenders, checks, "epoch", epochs * runs, missing=missing(JAX))


def curvature_case(n: int, d: int) -> Case:
    """The extremes of the curvature; the Gram matrix loses half of the digits of small ones."""
    p = Problem.random(n, d, seed=8)
    model = p.model()
    phi = torch.cat([p.x.double(), torch.ones(n, 1, dtype=torch.float64)], 1)

    def ours() -> tuple[None, float, float]:
        found = gdcore.curvature(model, nn.MSELoss(), (p.x, p.y))
        return None, found.largest_curvature, found.smallest_curvature

    def extremes(curvatures: Tensor) -> tuple[None, Tensor, Tensor]:
        return None, 2 / n * curvatures.max(), 2 / n * curvatures.min()

    contenders = [
        Contender("gdcore.curvature", ours),
        Contender("torch.linalg.svdvals", lambda: extremes(torch.linalg.svdvals(phi).square())),
        Contender("eigvalsh, ΦᵀΦ", lambda: extremes(torch.linalg.eigvalsh(phi.T @ phi))),
    ]
    values = np.linalg.svd(phi.numpy(), compute_uv=False)[[0, -1]] ** 2 * 2 / n
    # Of each singular value (and of ΦᵀΦ's eigenvalues) rounding moves at most n q u of the largest.
    errors = np.full(2, n * (d + 1) * 2.0**-53 * values[0])
    return Case(contenders, [Check(contenders, 1, Expected(None, 0.0, values, errors), "")], "call")
