"""Models that are recognised: functions of tensors, long fits, and the choice of a method."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

import gdcore
import jax_peer
from agreement_outputs import expected_long
from available import JAX, missing
from case import OURS, Case, Check, Contender, Planned
from linear import Problem
from linear_loops import fit_case, loop_contenders
from loops import BY_HAND, FEW, FIT, Training

SUITE, CHOICE = "recognised", "choice"
FUNCTIONS, FUNCTION_EPOCHS = 10, 2000
LONG, LONG_EPOCHS, LONG_FEW = (100_000, 64), 1000, 3
CHOICES, NATIVE, EAGERLY = 40, ("compressed", "stepwise"), f"{OURS}, method='eager'"


def function_name(index: int, n: int, d: int) -> str:
    return f"x @ W + b {index + 1}, ({n}, {d})"


LONG_NAME = f"({LONG[0]}, {LONG[1]}), {LONG_EPOCHS} epochs"


def cases(quick: bool, seed: int = 1) -> Iterator[Planned]:
    draw = random.Random(seed)
    for index in range(2 if quick else FUNCTIONS):
        n, d = draw.randint(1, 64), draw.randint(1, 8)
        build = functools.partial(function_case, n, d, draw.getrandbits(32))
        yield Planned(SUITE, function_name(index, n, d), build, 0.3)
    if not quick:
        yield Planned(SUITE, LONG_NAME, long_case, 2.0)


def choices(quick: bool, seed: int = 2) -> Iterator[Planned]:
    """Shapes and numbers of epochs at random, their logarithms evenly."""
    draw = random.Random(seed)
    for index in range(4 if quick else CHOICES):
        n, d = round(10 ** draw.uniform(0.5, 4.3)), round(2 ** draw.uniform(0, 6))
        epochs = round(10 ** draw.uniform(0, 3))
        build = functools.partial(choice_case, n, d, epochs, draw.getrandbits(32))
        yield Planned(CHOICE, f"{index + 1}: ({n}, {d}), {epochs} epochs", build, 0.15)


def function_case(n: int, d: int, seed: int) -> Case:
    """A whole call on new tensors, recognition included."""
    p = Problem.random(n, d, seed)
    case = fit_case(p, FUNCTION_EPOCHS, (FIT, "eager", BY_HAND), few=FEW)
    start = [torch.from_numpy(value) for value in p.start()]

    def run() -> Any:
        W = start[0].clone().reshape(d, 1).requires_grad_()
        b = start[1].clone().requires_grad_()
        optimizer = torch.optim.SGD([W, b], lr=p.lr)
        data = (p.x, p.y)
        history = gdcore.fit(
            lambda x: x @ W + b, nn.MSELoss(), optimizer, data, epochs=FUNCTION_EPOCHS
        )
        return history.loss[-1], W, b

    fit = Contender(FIT, run)
    last = case.checks[-2]
    check = Check([fit], 1, last.expected, last.where)
    return replace(case, contenders=[fit, *case.contenders[1:]], checks=[*case.checks, check])


def long_case() -> Case:
    """Compression included; what is not gdcore's is timed for a few epochs."""
    p = Problem.random(*LONG, seed=7)
    fit = Contender(FIT, loop_contenders(p, LONG_EPOCHS, {})[0].run, reset=p.seed_start)
    few = {one.name: one for one in loop_contenders(p, LONG_FEW, {})}
    start = [parameter.detach().numpy() for parameter in p.model().parameters()]
    others = [few["eager"], *jax_peer.scan(jax_peer.linear, start, p.x, p.y, p.lr, LONG_FEW)]
    checks = [
        Check([fit], 1, expected_long(p, LONG_EPOCHS), f"at epoch {LONG_EPOCHS}"),
        Check(others, 1, expected_long(p, LONG_FEW), f"at epoch {LONG_FEW}"),
    ]
    short = [replace(one, units=LONG_FEW) for one in others]
    return Case([fit, *short], checks, "epoch", LONG_EPOCHS, missing=missing(JAX))


def choice_case(n: int, d: int, epochs: int, seed: int) -> Case:
    """The method that a fit chooses beside every one that it could have chosen."""
    p, few = Problem.random(n, d, seed), min(epochs, FEW)
    training = Training(p.model, nn.MSELoss(), p.x, p.y, p.lr)

    def contender(name: str, epochs: int, **options: Any) -> Contender:
        return Contender(name, replace(training, options=options).fit(epochs))

    native = [contender(f"{OURS}, method={method!r}", epochs, method=method) for method in NATIVE]
    native = [contender(FIT, epochs), *native]
    eager = contender(EAGERLY, few, method="eager")
    checks = [
        Check(native, 1, expected_long(p, epochs), f"at epoch {epochs}"),
        Check([eager], 1, expected_long(p, few), f"at epoch {few}"),
    ]
    return Case([*native, replace(eager, units=few / epochs)], checks, "run")
