"""What the curvature says of each lesson: every number computed from the data at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn, optim

from gdcore import Curvature, curvature
from gdcore.nn import LegendreRegression, LinearRegression, PolynomialRegression

from .insight import at_end, ended, excess, flat, half_life, of_model
from .lesson import Run, Says, Settings, number, numbers
from .sayings import Saying, direction, epochs, say, shown, six

Start: TypeAlias = Callable[[Settings], Sequence[Tensor]]


def slope(half_of_the_sum: bool) -> Says:
    """y = Wx, descended along the mean's slope, or along that of half the sum."""

    def says(run: Run, settings: Settings) -> list[Saying]:
        found = of_model(LinearRegression(1, 1, bias=False), settings)
        if found is None:
            return []
        # Half the sum of squares is m / 2 times the mean.
        m = len(settings.y)
        own = found.largest_curvature * (m / 2 if half_of_the_sum else 1)
        sayings = [_step_of_slope(lr, own) for lr in settings.rates.values()]
        sayings.append(say("slope_limit", curvature=own, limit=six(2 / own), exact=six(1 / own)))
        if len(settings.rates) == 1:
            lr, name = settings.lr, "same_as_sgd" if half_of_the_sum else "same_as_manual"
            other = lr * m / 2 if half_of_the_sum else lr * 2 / m
            sayings.append(say(name, m=m, lr=lr, other=other, product=lr * own))
        return sayings

    return says


def _step_of_slope(lr: float, curvature: float) -> Saying:
    """What one rate leaves of the way, and how soon that is half, or by how much the cost grows."""
    factor = 1 - lr * curvature
    values = {"lr": lr, "curvature": curvature, "factor": factor}
    if factor <= -1:
        return say("slope_diverges", **values, growth=factor**2)
    if factor <= 0:
        return say("slope_overshoots", **values)
    return say("slope_crawls", **values, half=epochs(half_life(factor)))


def line(start: Start) -> Says:
    """y = Wx + b: the slow direction is mostly b."""

    def says(run: Run, settings: Settings) -> list[Saying]:
        model = LinearRegression(1, 1)
        found = of_model(model, settings)
        if found is None or found.rank < 2:
            return []
        slow = flat(found.slowest_direction)
        fast = torch.stack([slow[1], -slow[0]])  # at right angles to it
        limit = found.largest_stable_lr()
        sayings = [
            say(
                "line_curvatures",
                largest=found.largest_curvature,
                smallest=found.smallest_curvature,
                fast=direction(("W", "b"), fast),
                slow=direction(("W", "b"), slow),
                condition=found.condition_number,
            ),
            say("limit", largest=found.largest_curvature, limit=six(limit)),
        ]
        if settings.lr >= limit or not ended(run):
            return sayings
        optimum = flat(found.optimum)
        kept = (1 - settings.lr * found.curvatures) ** settings.epochs
        directions = torch.stack([fast, slow])
        before = torch.cat([value.double().flatten() for value in start(settings)])
        way = directions.T @ (kept * (directions @ (before - optimum)))
        slowest = say(
            "line_slow",
            lr=settings.lr,
            smallest=found.smallest_curvature,
            factor=six(1 - settings.lr * found.smallest_curvature),
            epochs=settings.epochs,
            left=kept.abs().max().item(),
            expected=(optimum + way)[1].item(),
            found=number(run.final["b"]),
            best_b=abs(round(optimum[1].item(), 9)),
        )
        at_end(model, run)
        after = excess(found, model)
        nn.utils.vector_to_parameters(before, model.parameters())
        share = after / max(excess(found, model), after)
        saves = [_saves("line_saves", found, model, share)] if 0 < share < 1 else []
        return [*sayings, slowest, *saves]

    return says


def _saves(name: str, found: Curvature, model: nn.Module, share: float) -> Saying:
    """How soon the cost above the least one is a share of what it is at the model's parameters: at
    the best rate, with momentum, and standardised.
    """

    def needed(found: Curvature, lr: float, momentum: float = 0.0) -> int | str:
        return epochs(found.epochs_to(share, optim.SGD(model.parameters(), lr, momentum)))

    better = found.standardised
    beta, heavy = found.best_momentum, found.best_momentum_lr
    return say(
        name,
        best=found.best_lr,
        by_rate=needed(found, found.best_lr),
        beta=beta,
        heavy=heavy,
        by_momentum=needed(found, heavy, beta),
        condition=found.condition_number,
        standard=better.condition_number,
        standard_lr=better.best_lr,
        by_standard=needed(better, better.best_lr),
    )


def cubic(run: Run, settings: Settings) -> list[Saying]:
    """Why no cubic comes nearer, and what the rate has to do with it."""
    model = PolynomialRegression(3)
    found = of_model(model, settings, "sum")
    if found is None:
        return []
    sayings = [say("cubic_floor", n=len(settings.y), floor=found.optimal_loss)]
    limit = found.largest_stable_lr()
    if settings.lr >= limit or not ended(run):
        return [*sayings, say("limit", largest=found.largest_curvature, limit=six(limit))]
    (loss,) = numbers(run.final["cost"])
    at_end(model, run)
    slow = say(
        "cubic_slow",
        loss=loss,
        above=loss - found.optimal_loss,
        largest=found.largest_curvature,
        smallest=found.smallest_curvature,
        condition=found.condition_number,
        slow=direction("abcd", flat(found.slowest_direction)),
        lr=settings.lr,
        factor=six(1 - settings.lr * found.smallest_curvature),
        steps=epochs(found.epochs_to(0.1, optim.SGD(model.parameters(), settings.lr))),
        limit=limit,
    )
    return [*sayings, slow, _saves("cubic_saves", found, model, 0.1)]


def cubic_by_rmsprop(run: Run, settings: Settings) -> list[Saying]:
    """Where RMSprop's steps, which do not become shorter, leave the cubic."""
    model = PolynomialRegression(3)
    found = of_model(model, settings, "sum")
    if found is None:
        return []
    sayings = [say("cubic_floor", n=len(settings.y), floor=found.optimal_loss)]
    if not ended(run):
        return sayings
    at_end(model, run)
    off = (model.coefficients.detach() - flat(found.optimum)).abs().tolist()
    swing = {"off_a": off[0], "off_c": off[2], "half": settings.lr / 2}
    above = excess(found, model)
    return [*sayings, say("rmsprop_swing", lr=settings.lr, excess=above, **swing)]


def legendre(run: Run, settings: Settings) -> list[Saying]:
    """A cost that is no quadratic: its curvature where the run ends, and the cubic's floor."""
    cubics = of_model(PolynomialRegression(3), settings, "sum")
    if cubics is None or not ended(run):
        return []
    model = LegendreRegression().double()
    at_end(model, run)
    data = settings.x.double(), settings.y.double()
    found = curvature(model, nn.MSELoss(reduction="sum"), data)
    (loss,) = numbers(run.final["cost"])
    return [
        say(
            "legendre_local",
            lr=settings.lr,
            largest=found.largest_curvature,
            smallest=found.smallest_curvature,
            limit=found.largest_stable_lr(),
        ),
        say("legendre_floor", floor=cubics.optimal_loss, loss=loss),
    ]


def plane(run: Run, settings: Settings) -> list[Saying]:
    """Several features that are much alike: one direction hardly changes the cost."""
    width = settings.x.shape[1]
    model = LinearRegression(width, 1)
    found = of_model(model, settings)
    if found is None:
        return []
    names = [*(f"w{index + 1}" for index in range(width)), "b"]
    limit = found.largest_stable_lr()
    sayings = [
        say(
            "plane_curvatures",
            largest=found.largest_curvature,
            smallest=found.smallest_curvature,
            condition=found.condition_number,
            slow=direction(names, flat(found.slowest_direction)),
        ),
        say("limit", largest=found.largest_curvature, limit=six(limit)),
    ]
    if settings.lr >= limit or not ended(run):
        return sayings
    (cost,) = numbers(run.final["cost"])
    half = epochs(half_life(1 - settings.lr * found.smallest_curvature))
    slow = {"lr": settings.lr, "half": half, "cost": cost, "floor": found.optimal_loss}
    at_end(model, run)
    left = excess(found, model)
    within = 0.01 * found.optimal_loss
    saves = [_saves("plane_saves", found, model, within / left)] if 0 < within < left else []
    return [*sayings, say("plane_slow", **slow), *saves]


def batches(size: Callable[[], int]) -> Says:
    """Each batch has curvatures and a best fit of its own."""

    def says(run: Run, settings: Settings) -> list[Saying]:
        model = LinearRegression(settings.x.shape[1], 1)
        whole = of_model(model, settings)
        if whole is None:
            return []
        pieces = zip(
            settings.x.double().split(size()), settings.y.double().split(size()), strict=True
        )
        each = [curvature(model, nn.MSELoss(), piece) for piece in pieces]
        steepest = max(one.largest_curvature for one in each)
        first = each[0]
        best = {name: value[None] for name, value in whole.optimum.items()}
        return [
            say(
                "batch_limit",
                limit=whole.largest_stable_lr(),
                least=2 / steepest,
                lr=settings.lr,
            ),
            say(
                "batch_fit",
                size=size(),
                rank=first.rank,
                parameters=first.parameters,
                own=abs(round(first.optimal_loss, 9)),
                costs=", ".join(shown(one.loss(best).item()) for one in each[:5]),
                floor=whole.optimal_loss,
            ),
        ]

    return says


def study(line_slope: float, offset: float) -> Says:
    """The best line for the hours of study, against the one that is judged."""

    def says(run: Run, settings: Settings) -> list[Saying]:
        found = of_model(LinearRegression(1, 1), settings)
        if found is None or found.rank < 2:
            return []
        judged = {"weight": torch.tensor([[[line_slope]]]), "bias": torch.tensor([[offset]])}
        slope, at_zero = flat(found.optimum).tolist()
        best = {"slope": slope, "offset": at_zero, "floor": found.optimal_loss}
        cost = found.loss(judged).item()
        limit = six(found.largest_stable_lr())
        return [
            say("study_best", **best, cost=cost),
            say("limit", largest=found.largest_curvature, limit=limit),
        ]

    return says
