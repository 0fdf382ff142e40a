"""One full-batch step inside a fit, against a JAX scan and against what bounds it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import gdcore
import jax_peer
import limits
from agreement import Affine, as_float64
from agreement_outputs import expected_long, expected_outputs
from available import JAX, missing
from case import Case, Check, Contender, Limit, Planned
from gdcore.lessons.golden import golden
from lesson_legendre import LegendreCurve
from lesson_sine import points
from linear import Problem
from loops import FIT, STEPWISE, Training, descent_case

SUITE = "stepwise"
FEW = 10

# Epochs of one call, so that setting up does not weigh.
EPOCHS = {
    (256, 64): 20_000,
    (10_000, 10): 2000,
    (100_000, 64): 50,
    (1_000_000, 64): 3,
    (1_000_000, 1): 200,
    (1_000_000, 8): 20,
}
TINY, TINY_EPOCHS = (3, 1), 100_000
MANY, OUTPUTS, MANY_EPOCHS = (100_000, 64), 16, 3
CURVE_EPOCHS = 4000
LARGEST_QUICK = 200_000
# The multiplications that a point needs, each with the addition that comes with it.
CUBIC_MULTIPLY_ADDS, LEGENDRE_MULTIPLY_ADDS = 9, 10


def name_of(n: int, d: int, outputs: int = 1) -> str:
    return f"({n}, {d})" + (f" to {outputs} outputs" if outputs > 1 else "")


CUBIC, LEGENDRE = "cubic, 2000 points", "Legendre, 2000 points"


def cases(quick: bool) -> Iterator[Planned]:
    """A quick run leaves out what takes more than a few milliseconds a step."""
    yield Planned(SUITE, name_of(*TINY), tiny_case)
    yield Planned(SUITE, CUBIC, cubic_case)
    yield Planned(SUITE, LEGENDRE, legendre_case)
    for (n, d), epochs in EPOCHS.items():
        if not quick or n * d <= LARGEST_QUICK:
            yield Planned(SUITE, name_of(n, d), functools.partial(linear_case, n, d, epochs))
    if not quick:
        yield Planned(SUITE, name_of(*MANY, OUTPUTS), many_outputs_case)


def stepwise_fit(training: Training) -> Callable[[int], list[Contender]]:
    """``fit`` and the usual loop, both on a model and an optimizer that stay."""
    training = replace(training, options=STEPWISE)

    def contenders(epochs: int) -> list[Contender]:
        fit = replace(training.fit_alone(epochs), name=FIT)
        return [fit, training.eager_alone(epochs)]

    return contenders


def of_model(
    make: Callable[[], nn.Module], x: Tensor, y: Tensor, lr: float, mean: bool
) -> Training:
    return Training(make, nn.MSELoss(reduction="mean" if mean else "sum"), x, y, lr)


def scanned(p: Problem, epochs: int) -> list[Contender]:
    start = [parameter.detach().numpy() for parameter in p.model().parameters()]
    return jax_peer.scan(jax_peer.linear, start, p.x, p.y, p.lr, epochs)


def bounded_by(p: Problem) -> tuple[Limit | None, float]:
    """Within the first cache arithmetic; else the reading of the data."""
    if p.read_bytes >= 2**17:
        return limits.reading(p.read_bytes), p.read_bytes
    return limits.multiply_adds(), p.multiply_adds


def linear_case(n: int, d: int, epochs: int) -> Case:
    """Every contender is checked over the first epochs; at the end in closed form."""
    p = Problem.random(n, d, seed=n + d)
    contenders = stepwise_fit(of_model(p.model, p.x, p.y, p.lr, mean=True))
    arrays = (p.affine(), p.targets(), p.flat_start(), p.lr)
    short = descent_case(contenders, FEW, *arrays, mean=True)
    fit, _ = contenders(epochs)
    whole = [fit, *scanned(p, epochs)]
    at_end = Check(whole, 1, expected_long(p, epochs), f"at epoch {epochs}")
    eager = replace(short.contenders[1], units=FEW)
    limit, work = bounded_by(p)
    timed, checks = [fit, eager, *whole[1:]], [*short.checks, at_end]
    return Case(timed, checks, "epoch", epochs, limit, work, missing(JAX))


def tiny_case() -> Case:
    """So many epochs that only the loop counts; the training is checked over the first 2 000."""
    p = replace(Problem.random(*TINY, seed=4), lr=0.1)
    contenders = stepwise_fit(of_model(p.model, p.x, p.y, p.lr, mean=True))
    arrays = (p.affine(), p.targets(), p.flat_start(), p.lr)
    short = descent_case(
        contenders, 2000, *arrays, mean=True, at_end=scanned(p, 2000), few=FEW, missing=missing(JAX)
    )
    fit, _ = contenders(TINY_EPOCHS)
    eager = replace(short.contenders[1], units=FEW)
    return Case(
        [fit, eager, *scanned(p, TINY_EPOCHS)],
        short.checks,
        "epoch",
        TINY_EPOCHS,
        missing=short.missing,
    )


def cubic_case() -> Case:
    entry = golden("sine_torch")
    lr, start = entry["lr"], torch.tensor(entry["initial_coefficients"])
    x, y = points()

    def make() -> nn.Module:
        model = gdcore.nn.PolynomialRegression(3)
        with torch.no_grad():
            model.coefficients.copy_(start)
        return model

    features = x.double().numpy()[:, None] ** range(4)
    model = Affine(features, intercept=False, roundings=3)
    scan = jax_peer.scan(jax_peer.polynomial, [start.numpy()], x, y, lr, CURVE_EPOCHS, mean=False)
    work = CUBIC_MULTIPLY_ADDS * len(x)
    return curve_case(of_model(make, x, y, lr, mean=False), model, start, scan, work)


def legendre_case() -> Case:
    entry = golden("legendre")
    lr, start = entry["lr"], torch.tensor([entry["init"][name] for name in "abcd"])
    x, y = points()
    training = of_model(gdcore.nn.LegendreRegression, x, y, lr, mean=False)
    scan = jax_peer.scan(jax_peer.legendre, list(start), x, y, lr, CURVE_EPOCHS, mean=False)
    work = LEGENDRE_MULTIPLY_ADDS * len(x)
    return curve_case(training, LegendreCurve(x.numpy()), start, scan, work)


def curve_case(
    training: Training, model: Any, start: Tensor, scan: Sequence[Contender], work: float
) -> Case:
    return descent_case(
        stepwise_fit(training),
        CURVE_EPOCHS,
        model,
        as_float64(training.y),
        as_float64(start),
        training.lr,
        mean=False,
        unit="epoch",
        limit=limits.multiply_adds(),
        work=work,
        at_end=scan,
        few=FEW,
        missing=missing(JAX),
    )


def many_outputs_case() -> Case:
    """Its limit is what ``torch.mm`` takes for the two products of a step."""
    p = Problem.random(*MANY, seed=16, outputs=OUTPUTS)
    contenders = stepwise_fit(of_model(p.model, p.x, p.y, p.lr, mean=True))(MANY_EPOCHS)
    contenders += scanned(p, MANY_EPOCHS)
    expected = expected_outputs(p, MANY_EPOCHS)
    checks = [Check(contenders, 1, expected, f"at epoch {MANY_EPOCHS}")]
    limit = limits.products(p.x, OUTPUTS)
    return Case(contenders, checks, "epoch", MANY_EPOCHS, limit, p.multiply_adds, missing(JAX))
