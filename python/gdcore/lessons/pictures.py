"""The picture that each lesson draws or needs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from gdcore import plotting

from .lesson import Run, Settings, all_finite, number, numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float64]

Draw: TypeAlias = "Callable[[Run, Settings], Figure]"
Curve: TypeAlias = "Callable[[Run, Array], tuple[Array, str]]"


def _titled(figure: Figure, title: str, run: Run) -> Figure:
    if run.diverged is not None:
        title += f" (diverged at step {run.diverged})"
    figure.suptitle(title)
    return figure


def _costs(run: Run, ax: Axes, *, log_steps: bool = False) -> None:
    """The cost of every epoch where the version has them, else of the recorded ones."""
    if run.costs is not None:
        plotting.loss_curve(run.costs.numpy(), ax=ax, log_steps=log_steps)
    else:
        steps = [row.step for row in run.rows]
        costs = [row.cost for row in run.rows]
        # Dotted between the recorded epochs, where the cost is not known.
        plotting.loss_curve(costs, steps, ax=ax, log_steps=log_steps, linestyle=":")
    ax.set_ylabel("cost")


def _ended(run: Run) -> bool:
    return run.diverged is None and all_finite(run.final)


def parabola_and_cost(title: str) -> Draw:
    """The cost over W with the steps on it, and the cost over epochs."""

    def draw(run: Run, settings: Settings) -> Figure:
        figure, (left, right) = plotting.new_figure(2)
        weights = [number(row.values["W"]) for row in run.rows]
        plotting.cost_parabola(settings.x.numpy(), settings.y.numpy(), weights, ax=left)
        left.set_title("the steps on the cost", fontsize="medium")
        _costs(run, right)
        right.set_title("the cost, epoch by epoch", fontsize="medium")
        return _titled(figure, title.format(lr=settings.lr), run)

    return draw


def line_and_cost(title: str, answer_at: float | None = None) -> Draw:
    """The fitted line over the data, and the cost over epochs."""

    def draw(run: Run, settings: Settings) -> Figure:
        figure, (left, right) = plotting.new_figure(2)
        x, y = settings.x.numpy(), settings.y.numpy()
        if _ended(run):
            W, b = number(run.final["W"]), number(run.final["b"])
            reach = [x.min(), x.max()] if answer_at is None else [x.min(), max(x.max(), answer_at)]
            ends = np.array([min(0.0, reach[0]), reach[1] + 0.25])
            label = f"y = {W:.3f} x {'-' if b < 0 else '+'} {abs(b):.3f}"
            plotting.fitted_curve(x, y, ends, W * ends + b, ax=left, label=label)
            if answer_at is not None:
                _mark_answer(left, answer_at, W * answer_at + b)
        else:
            plotting.fitted_curve(x, y, ax=left)
        _costs(run, right)
        return _titled(figure, title, run)

    return draw


def _mark_answer(ax: Axes, hours: float, points: float) -> None:
    ax.plot([hours], [points], "*", color=plotting.GREEN, markersize=13)
    ax.annotate(
        f"x = {hours:g}: {points:.3f}",
        (hours, points),
        xytext=(-10, -2),
        textcoords="offset points",
        ha="right",
        color=plotting.GREEN,
    )


def cubic(run: Run, x: Array) -> tuple[Array, str]:
    """The polynomial that a run ends with."""
    a, b, c, d = numbers(run.final["coefficients"])
    return a + b * x + c * x**2 + d * x**3, "cubic"


def legendre(run: Run, x: Array) -> tuple[Array, str]:
    """The curve a + b P3(c + d x) that a run ends with."""
    a, b, c, d = (number(run.final[name]) for name in "abcd")
    u = c + d * x
    return a + b * (5 * u**3 - 3 * u) / 2, "a + b P3(c + d x)"


def fitted_curve(title: str, curve: Curve) -> Draw:
    """The fitted curve over the data, and the loss over steps."""

    def draw(run: Run, settings: Settings) -> Figure:
        figure, (left, right) = plotting.new_figure(2)
        x, y = settings.x.numpy(), settings.y.numpy()
        if _ended(run):
            grid = np.linspace(float(x.min()), float(x.max()), 400)
            values, label = curve(run, grid)
            plotting.fitted_curve(x, y, grid, values, ax=left, label=label)
        else:
            plotting.fitted_curve(x, y, ax=left)
        _costs(run, right)
        right.set_ylabel("loss")
        right.set_xlabel("step")
        return _titled(figure, title, run)

    return draw


def cost_and_predictions(title: str) -> Draw:
    """Predictions against targets, and the cost, which falls in the first few epochs."""

    def draw(run: Run, settings: Settings) -> Figure:
        figure, (left, right) = plotting.new_figure(2)
        if _ended(run):
            ends = [value for name, value in run.final.items() if name != "cost"]
            *weights, bias = itertools.chain.from_iterable(map(numbers, ends))
            predicted = settings.x.numpy() @ np.array(weights) + bias
            plotting.predictions(settings.y.numpy(), predicted, ax=left)
        _costs(run, right, log_steps=True)
        return _titled(figure, title, run)

    return draw


def batch_costs(run: Run, settings: Settings) -> Figure:
    """The cost of each batch, which wanders, for each way of drawing batches."""
    figure, (ax,) = plotting.new_figure()
    styles = ((plotting.BLUE, "-"), (plotting.ORANGE, "-"), ("black", ":"))
    for series, (color, linestyle) in zip(
        dict.fromkeys(row.series for row in run.rows), styles, strict=False
    ):
        rows = run.series(series)
        steps = [row.step for row in rows]
        plotting.loss_curve(
            [row.cost for row in rows],
            steps,
            ax=ax,
            label=series,
            color=color,
            linestyle=linestyle,
        )
    ax.set_xlabel("update")
    ax.set_ylabel("cost of the batch")
    return _titled(figure, "Minibatches of two", run)


def rates(run: Run, settings: Settings) -> Figure:
    """The run at too high a rate on its parabola, and the cost at each rate."""
    figure, (left, right) = plotting.new_figure(2)
    first = next(iter(settings.rates))
    weights = [number(row.values["W"]) for row in run.series(first)]
    plotting.cost_parabola(settings.x.numpy(), settings.y.numpy(), weights, ax=left)
    left.set_title(f"lr = {settings.rates[first]:g}", fontsize="medium")
    colors = (plotting.ORANGE, plotting.BLUE)
    for (series, lr), color in zip(settings.rates.items(), colors, strict=False):
        rows = run.series(series)
        label = f"lr = {lr:g}" if series == f"{lr:g}" else f"lr = {lr:g}: {series}"
        steps = [row.step for row in rows]
        plotting.loss_curve([row.cost for row in rows], steps, ax=right, label=label, color=color)
    right.set_ylabel("cost")
    return _titled(figure, "The learning rate", run)


def errors_of_a_line(slope: float, offset: float) -> Draw:
    """A line over the data, and how far off it is at each."""

    def draw(run: Run, settings: Settings) -> Figure:
        figure, (ax,) = plotting.new_figure()
        x, y = settings.x.numpy().ravel(), settings.y.numpy().ravel()
        ends = np.array([x.min() - 0.3, x.max() + 0.3])
        line = slope * ends + offset
        plotting.error_bars(x, y, slope * x + offset, ax=ax)
        plotting.fitted_curve(x, y, ends, line, ax=ax, label=f"y = {slope:g}x + {offset:g}")
        ax.set_xlabel("hours")
        ax.set_ylabel("points")
        return _titled(figure, "The errors that a cost is made of", run)

    return draw


def accumulating_gradient(run: Run, settings: Settings) -> Figure:
    """w.grad after each call of backward, without zero_grad."""
    figure, (ax,) = plotting.new_figure()
    calls = [row.step + 1 for row in run.rows]
    gradients = [number(row.values["gradient"]) for row in run.rows]
    ax.plot(calls, gradients, "o-", color=plotting.ORANGE, markersize=4, label="without zero_grad")
    ax.axhline(2.0, color=plotting.BLUE, linestyle="--", label="the gradient of z = 2w")
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("calls of backward")
    ax.set_ylabel("w.grad")
    ax.legend(frameon=False)
    return _titled(figure, "backward adds to w.grad", run)


def tangent(run: Run, settings: Settings) -> Figure:
    """z = 2 w^2 + 5, and the slope at w = 2."""
    figure, (ax,) = plotting.new_figure()
    slope = number(run.final["gradient"])
    w = np.linspace(-0.5, 3.5, 200)
    ax.plot(w, 2 * w**2 + 5, color=plotting.GREY, linewidth=2, label="z = 2 w^2 + 5")
    near = np.array([1.0, 3.0])
    line = 13.0 + slope * (near - 2.0)
    ax.plot(near, line, color=plotting.ORANGE, linewidth=2, label=f"slope {slope:g} at w = 2")
    ax.plot([2.0], [13.0], "o", color=plotting.ORANGE, markersize=7)
    ax.set_xlabel("w")
    ax.set_ylabel("z")
    ax.legend(frameon=False)
    return _titled(figure, "What backward computes", run)
