"""A descent of one parameter: its steps on the parabola of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ._look import GREY, ORANGE, Array, axes_or_new, finished

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Above this multiple of the first distance from the minimum a diverging run is cut, or its first
# steps could not be seen.
FARTHEST = 12.0


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
    ax = axes_or_new(ax)
    x, y, path = (np.asarray(values, dtype=float).ravel() for values in (x, y, weights))
    best = float(x @ y / (x @ x)) if np.any(x) else 0.0
    lowest = float(np.mean((best * x - y) ** 2))
    return parabola(path, best, float(2 * np.mean(x**2)), lowest, ax, "W", "cost")


def parabola(
    path: Array,
    best: float,
    bend: float,
    lowest: float,
    ax: Axes,
    name: str,
    height: str,
    numbers: Sequence[int] | None = None,
) -> Axes:
    """The parabola of that curvature over its lowest point, and the steps along it.

    The places are numbered 0, 1, 2, ... if no numbers are given.
    """
    if len(path):
        path = path[: within_sight(np.abs(path - best))]

    def cost(w: Array) -> Array:
        return np.asarray(lowest + bend / 2 * (w - best) ** 2)

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
            str(index if numbers is None else numbers[index]),
            (path[index], heights[index]),
            xytext=(0, -13) if foot else (10 * side, 1),
            textcoords="offset points",
            ha="center",
            color=ORANGE,
        )
    ax.set_ylim(bottom=-0.1 * 1.3 * top)
    ax.set_xlabel(name)
    ax.set_ylabel(height)
    return finished(ax, legend=False)


def _apart(x: Array, y: Array) -> list[int]:
    """The points, in units of the axes, whose numbers do not run into one another.

    The first has its number in any case, then the farthest travelled: the largest y first.
    """
    chosen: list[int] = []
    for index in [0, *np.argsort(-y, kind="stable").tolist()] if len(x) else []:
        if all(np.hypot(x[index] - x[c], y[index] - y[c]) > 0.085 for c in chosen):
            chosen.append(index)
    return chosen


def within_sight(distance: Array) -> int:
    """How many steps before a diverging path would make its first ones vanish."""
    far = np.flatnonzero(~(distance <= FARTHEST * max(distance[0], 1e-12)))
    return max(2, int(far[0])) if len(far) else len(distance)
