"""Pictures of gradient descent: arrays in, matplotlib Axes out.

Every function draws on the Axes it is given, or on a new figure's, and returns the Axes. matplotlib
is imported when a picture is first drawn. The colours are Okabe and Ito's, which the colour-blind
can tell apart too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "cost_parabola",
    "error_bars",
    "fitted_curve",
    "loss_curve",
    "new_figure",
    "predictions",
]

Array: TypeAlias = NDArray[np.float64]

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"

# Above this multiple of the first distance from the minimum a diverging run is cut, or its first
# steps could not be seen.
FARTHEST = 12.0


def new_figure(panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure 1600 pixels wide, with its panels side by side; legible at half that size.

    Args:
        panels: How many Axes.

    Returns:
        The figure and its Axes.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.

    Example:
        >>> from gdcore.plotting import new_figure
        >>> figure, axes = new_figure(2)
        >>> len(axes)
        2
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.9 if panels > 1 else 4.5), dpi=200, layout="constrained")
    axes = [figure.add_subplot(1, panels, index + 1) for index in range(panels)]
    for ax in axes:
        ax.grid(True, color="#E4E4E4", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _axes(ax: Axes | None) -> Axes:
    return new_figure()[1][0] if ax is None else ax


def loss_curve(
    losses: ArrayLike,
    steps: ArrayLike | None = None,
    *,
    ax: Axes | None = None,
    label: str | None = None,
    color: str = BLUE,
    linestyle: str = "-",
    log_steps: bool = False,
) -> Axes:
    """Loss over steps, on a logarithmic scale where it is positive throughout.

    Args:
        losses: One per step, (n,).
        steps: The steps they belong to, (n,); 0, 1, 2, ... if not given.
        ax: Where to draw.
        label: A name in the legend.
        color: Of the line.
        linestyle: Of the line.
        log_steps: Count steps from 1 on a logarithmic scale too, for a cost that falls at once.

    Example:
        >>> from gdcore.plotting import loss_curve
        >>> ax = loss_curve([4.0, 1.0, 0.25])
        >>> ax.get_yscale()
        'log'
    """
    ax = _axes(ax)
    values = np.asarray(losses, dtype=float)
    at = np.arange(len(values)) if steps is None else np.asarray(steps)
    marker = "o" if len(values) <= 25 else ""
    ax.plot(
        at + 1 if log_steps else at,
        values,
        color=color,
        linestyle=linestyle,
        marker=marker,
        markersize=4,
        label=label,
    )
    if len(values) and np.all(values > 0):
        ax.set_yscale("log")
    if log_steps:
        ax.set_xscale("log")
    else:
        ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("epoch + 1" if log_steps else "epoch")
    ax.set_ylabel("cost")
    if label:
        ax.legend(frameon=False)
    return ax


def cost_parabola(
    x: ArrayLike, y: ArrayLike, weights: ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """The cost of y = Wx over W, mean (W x_i - y_i)^2, with the steps of a descent on it.

    A run that diverges is drawn as far as it can be told apart.

    Args:
        x: Inputs, (n,).
        y: Targets, (n,).
        weights: W before each update, (steps,).
        ax: Where to draw.

    Example:
        >>> from gdcore.plotting import cost_parabola
        >>> ax = cost_parabola([1, 2, 3], [1, 2, 3], [0.0, 1.4, 0.84])
        >>> ax.get_xlabel()
        'W'
    """
    ax = _axes(ax)
    x, y, path = (np.asarray(values, dtype=float).ravel() for values in (x, y, weights))
    best = float(x @ y / (x @ x)) if np.any(x) else 0.0
    distance = np.abs(path - best)
    far = np.flatnonzero(distance > FARTHEST * max(distance[0], 1e-12)) if len(path) else path
    path = path[: max(2, int(far[0]))] if len(far) else path

    def cost(w: Array) -> Array:
        return np.asarray(np.mean((np.multiply.outer(w, x) - y) ** 2, axis=-1))

    reach = 1.15 * float(np.max(np.abs(path - best), initial=0.0)) or 1.0
    grid = np.linspace(best - reach, best + reach, 400)
    ax.plot(grid, cost(grid), color=GREY, linewidth=1.5)
    heights = cost(path)
    for a, b in zip(range(len(path) - 1), range(1, len(path)), strict=True):
        ax.annotate(
            "",
            xy=(path[b], heights[b]),
            xytext=(path[a], heights[a]),
            arrowprops={"arrowstyle": "->", "color": ORANGE, "linewidth": 1.2, "shrinkB": 2},
        )
    ax.plot(path, heights, "o", color=ORANGE, markersize=5)
    top = float(np.max(heights, initial=0.0)) or 1.0
    for index in _apart(path / (2 * reach), heights / top):
        # Beside the curve; a start at its foot, which other steps surround, below it.
        side = -1 if path[index] < best else 1
        foot = index == 0 and heights[0] < 0.1 * top
        ax.annotate(
            str(index),
            (path[index], heights[index]),
            xytext=(0, -13) if foot else (10 * side, 1),
            textcoords="offset points",
            ha="center",
            color=ORANGE,
        )
    ax.set_ylim(bottom=-0.1 * 1.3 * top)
    ax.set_xlabel("W")
    ax.set_ylabel("cost")
    return ax


def _apart(x: Array, y: Array) -> list[int]:
    """The points, in units of the axes, whose numbers do not run into one another.

    The first has its number in any case, then the farthest travelled: the largest y first.
    """
    chosen: list[int] = []
    for index in [0, *np.argsort(-y, kind="stable").tolist()] if len(x) else []:
        if all(np.hypot(x[index] - x[c], y[index] - y[c]) > 0.085 for c in chosen):
            chosen.append(index)
    return chosen


def fitted_curve(
    x: ArrayLike,
    y: ArrayLike,
    x_curve: ArrayLike | None = None,
    y_curve: ArrayLike | None = None,
    *,
    ax: Axes | None = None,
    label: str = "fitted",
) -> Axes:
    """Data as points, and the fitted line or curve over them.

    Args:
        x: Inputs, (n,).
        y: Targets, (n,).
        x_curve: Where the curve is given, (m,), ascending; no curve is drawn if not given.
        y_curve: Its values, (m,).
        ax: Where to draw.
        label: The curve's name in the legend.

    Example:
        >>> from gdcore.plotting import fitted_curve
        >>> ax = fitted_curve([1, 2, 3], [2, 4, 6], [0, 4], [0, 8], label="y = 2x")
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['data', 'y = 2x']
    """
    ax = _axes(ax)
    x, y = np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()
    many = len(x) > 100
    ax.plot(
        x,
        y,
        "o",
        color=BLUE,
        markersize=2.5 if many else 6,
        alpha=0.5 if many else 1.0,
        label="data",
    )
    if x_curve is not None and y_curve is not None:
        ax.plot(np.asarray(x_curve), np.asarray(y_curve), color=ORANGE, linewidth=2, label=label)
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    ax.legend(frameon=False, markerscale=3 if many else 1)
    return ax


def error_bars(x: ArrayLike, y: ArrayLike, predicted: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """The error of each prediction as a vertical bar, with its size.

    Args:
        x: Inputs, (n,).
        y: Targets, (n,).
        predicted: Predictions, (n,).
        ax: Where to draw.

    Example:
        >>> from gdcore.plotting import error_bars
        >>> ax = error_bars([2, 3], [25, 50], [27, 40])
        >>> [text.get_text() for text in ax.texts]
        ['-2', '10']
    """
    ax = _axes(ax)
    columns = (np.asarray(values, dtype=float).ravel() for values in (x, y, predicted))
    for index, (at, actual, line) in enumerate(zip(*columns, strict=True)):
        label = "error" if index == 0 else None
        ax.plot([at, at], [line, actual], color=PURPLE, linewidth=2.5, zorder=1, label=label)
        ax.annotate(
            f"{actual - line:g}",
            (at, (actual + line) / 2),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=PURPLE,
        )
    return ax


def predictions(targets: ArrayLike, predicted: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Predictions against targets; on the diagonal they are equal.

    Args:
        targets: (n,).
        predicted: (n,).
        ax: Where to draw.

    Example:
        >>> from gdcore.plotting import predictions
        >>> predictions([1.0, 2.0], [1.1, 1.9]).get_xlabel()
        'target'
    """
    ax = _axes(ax)
    y, p = np.asarray(targets, dtype=float).ravel(), np.asarray(predicted, dtype=float).ravel()
    ends = [min(y.min(), p.min()), max(y.max(), p.max())]
    ax.plot(ends, ends, color=GREY, linewidth=1.5, label="prediction = target")
    ax.plot(y, p, "o", color=ORANGE, markersize=6, label="data")
    ax.set_xlabel("target")
    ax.set_ylabel("prediction")
    ax.legend(frameon=False)
    return ax
