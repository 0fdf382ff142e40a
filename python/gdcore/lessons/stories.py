"""What the curvature says of each lesson: every number computed from the data at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn, optim

from gdcore.nn import LegendreRegression, LinearRegression, PolynomialRegression

from .insight import Curvature, curvature, local_curvatures, shrinkage
from .lesson import Run, Says, Settings, all_finite, number, numbers
from .sayings import Saying, direction, epochs, say, shown, six

Start: TypeAlias = Callable[[Settings], Sequence[Tensor]]

TENTH_OF_THE_LOSS = math.sqrt(0.1)  # the cost is quadratic in the distance


def sgd(lr: float, momentum: float = 0.0) -> optim.SGD:
    """An optimizer's settings, for `Curvature.epochs_to`."""
    return optim.SGD([torch.zeros(1)], lr=lr, momentum=momentum)


def ended(run: Run) -> bool:
    return run.diverged is None and all_finite(run.final)


def of_model(model: nn.Module, settings: Settings, reduction: str = "mean") -> Curvature | None:
    """The curvature on the lesson's data; None where there is none that can be spoken of."""
    x, y = settings.x.double(), settings.y.double()
    loss_fn = nn.MSELoss(reduction=reduction)
    with torch.no_grad():
        reach = (model.double()(x).abs().max() + x.abs().max() + y.abs().max()).item()
    # Squares of larger numbers overflow.
    if not reach < 1e100:
        return None
    found = curvature(model, loss_fn, (x, y))
    return found if found.rank else None


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
    return say("slope_crawls", **values, half=math.ceil(math.log(0.5) / math.log(factor)))


def line(start: Start) -> Says:
    """y = Wx + b: the slow direction is mostly b."""

    def says(run: Run, settings: Settings) -> list[Saying]:
        found = of_model(LinearRegression(1, 1), settings)
        if found is None or found.rank < 2:
            return []
        fast, slow = (direction(("W", "b"), vector) for vector in found.directions)
        limit = found.largest_stable_lr()
        sayings = [
            say(
                "line_curvatures",
                largest=found.largest_curvature,
                smallest=found.smallest_curvature,
                fast=fast,
                slow=slow,
                condition=found.condition_number,
            ),
            say("limit", largest=found.largest_curvature, limit=six(limit)),
        ]
        if settings.lr >= limit or not ended(run):
            return sayings
        before = torch.cat([value.double().flatten() for value in start(settings)])
        kept = (1 - settings.lr * found.curvatures) ** settings.epochs
        way = found.directions.T @ (kept * (found.directions @ (before - found.optimum)))
        tolerance = float(kept.abs().max())
        slowest = say(
            "line_slow",
            lr=settings.lr,
            smallest=found.smallest_curvature,
            factor=six(1 - settings.lr * found.smallest_curvature),
            epochs=settings.epochs,
            left=tolerance,
            expected=(found.optimum + way)[1].item(),
            found=number(run.final["b"]),
            best_b=abs(round(found.optimum[1].item(), 9)),
        )
        return [*sayings, slowest, _saves("line_saves", found, tolerance)]

    return says


def _saves(name: str, found: Curvature, tolerance: float) -> Saying:
    """How soon as much would be done at the best rate, with momentum, and standardised."""
    better = found.standardised
    beta = found.best_momentum
    return say(
        name,
        left=tolerance,
        best=found.best_lr,
        by_rate=epochs(found.epochs_to(tolerance, sgd(found.best_lr))),
        beta=beta,
        heavy=found.heavy_ball_lr,
        by_momentum=epochs(found.epochs_to(tolerance, sgd(found.heavy_ball_lr, beta))),
        condition=found.condition_number,
        standard=better.condition_number,
        standard_lr=better.best_lr,
        by_standard=epochs(better.epochs_to(tolerance, sgd(better.best_lr))),
    )


def _cubic(settings: Settings) -> Curvature | None:
    return of_model(PolynomialRegression(3), settings, "sum")


def cubic(run: Run, settings: Settings) -> list[Saying]:
    """Why no cubic comes nearer, and what the rate has to do with it."""
    found = _cubic(settings)
    if found is None:
        return []
    sayings = [say("cubic_floor", n=len(settings.y), floor=found.optimal_loss)]
    limit = found.largest_stable_lr()
    if settings.lr >= limit or not ended(run):
        return [*sayings, say("limit", largest=found.largest_curvature, limit=six(limit))]
    (loss,) = numbers(run.final["cost"])
    slow = say(
        "cubic_slow",
        loss=loss,
        above=loss - found.optimal_loss,
        largest=found.largest_curvature,
        smallest=found.smallest_curvature,
        condition=found.condition_number,
        slow=direction("abcd", found.slowest_direction),
        lr=settings.lr,
        factor=six(1 - settings.lr * found.smallest_curvature),
        steps=epochs(found.epochs_to(TENTH_OF_THE_LOSS, sgd(settings.lr))),
        limit=limit,
    )
    return [*sayings, slow, _saves("cubic_saves", found, TENTH_OF_THE_LOSS)]


def cubic_by_rmsprop(run: Run, settings: Settings) -> list[Saying]:
    """Where RMSprop's steps, which do not become shorter, leave the cubic."""
    found = _cubic(settings)
    if found is None:
        return []
    sayings = [say("cubic_floor", n=len(settings.y), floor=found.optimal_loss)]
    if not ended(run):
        return sayings
    end = torch.tensor(numbers(run.final["coefficients"]), dtype=torch.float64)
    off = (end - found.optimum).abs().tolist()
    swing = {"off_a": off[0], "off_c": off[2], "half": settings.lr / 2}
    return [*sayings, say("rmsprop_swing", lr=settings.lr, excess=found.excess(end), **swing)]


def legendre(run: Run, settings: Settings) -> list[Saying]:
    """A cost that is no quadratic: its curvature where the run ends, and the cubic's floor."""
    cubics = _cubic(settings)
    if cubics is None or not ended(run):
        return []
    model = LegendreRegression().double()
    model.load_state_dict({name: torch.tensor(number(run.final[name])) for name in "abcd"})
    data = settings.x.double(), settings.y.double()
    found = local_curvatures(model, nn.MSELoss(reduction="sum"), data)
    largest = found[-1].item()
    (loss,) = numbers(run.final["cost"])
    local = {"largest": largest, "smallest": found[0].item(), "limit": 2 / largest}
    return [
        say("legendre_local", lr=settings.lr, **local),
        say("legendre_floor", floor=cubics.optimal_loss, loss=loss),
    ]


def plane(run: Run, settings: Settings) -> list[Saying]:
    """Several features that are much alike: one direction hardly changes the cost."""
    width = settings.x.shape[1]
    found = of_model(LinearRegression(width, 1), settings)
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
            slow=direction(names, found.slowest_direction),
        ),
        say("limit", largest=found.largest_curvature, limit=six(limit)),
    ]
    if settings.lr >= limit or not ended(run):
        return sayings
    (cost,) = numbers(run.final["cost"])
    half = epochs(found.epochs_to(0.5, sgd(settings.lr)))
    slow = {"lr": settings.lr, "half": half, "cost": cost, "floor": found.optimal_loss}
    return [*sayings, say("plane_slow", **slow), _saves("plane_saves", found, 0.5)]


def batches(size: Callable[[], int]) -> Says:
    """Each batch has curvatures and a best fit of its own."""

    def says(run: Run, settings: Settings) -> list[Saying]:
        model = LinearRegression(settings.x.shape[1], 1)
        whole = of_model(model, settings)
        if whole is None:
            return []
        pieces = zip(settings.x.split(size()), settings.y.split(size()), strict=True)
        each = [curvature(model, nn.MSELoss(), piece) for piece in pieces]
        steepest = max(one.largest_curvature for one in each if one.rank)
        first = each[0]
        return [
            say(
                "batch_limit",
                limit=whole.largest_stable_lr(),
                least=2 / steepest,
                lr=settings.lr,
            ),
            say(
                "batch_fit",
                size=len(first.y),
                rank=first.rank,
                parameters=first.features.shape[1],
                own=abs(round(first.optimal_loss, 9)),
                costs=", ".join(
                    shown(one.optimal_loss + one.excess(whole.optimum)) for one in each[:5]
                ),
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
        judged = torch.tensor([line_slope, offset], dtype=torch.float64)
        slope, at_zero = found.optimum.tolist()
        best = {"slope": slope, "offset": at_zero, "floor": found.optimal_loss}
        cost = found.optimal_loss + found.excess(judged)
        limit = six(found.largest_stable_lr())
        return [
            say("study_best", **best, cost=cost),
            say("limit", largest=found.largest_curvature, limit=limit),
        ]

    return says


def second_derivative(function: Callable[[Tensor], Tensor], at: float) -> tuple[float, float]:
    """The first and the second derivative of a function of one number."""
    w = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(function(w), w, create_graph=True)
    (second,) = torch.autograd.grad(first, w) if first.requires_grad else (torch.zeros(()),)
    return first.item(), second.item()


def parabola(at: float) -> Says:
    """z = 2 w^2 + 5: one step of 1 / curvature ends at the minimum."""

    def says(run: Run, settings: Settings) -> list[Saying]:
        first, second = second_derivative(lambda w: 2 * w**2 + 5, at)
        end = at - first / second
        return [say("parabola", curvature=second, gradient=first, at=at, end=end)]

    return says


def accumulated(at: float) -> Says:
    """z = 2 w has no curvature; and sums of gradients are momentum 1, which never settles."""

    def says(run: Run, settings: Settings) -> list[Saying]:
        _, second = second_derivative(lambda w: 2 * w, at)
        # Whatever lr curvature is, as long as it is stable at all.
        kept = {shrinkage(move, momentum=1.0) for move in (0.1, 1.0, 3.0)}
        return [say("accumulated", curvature=second, kept=max(kept))]

    return says
