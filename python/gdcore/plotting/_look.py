"""The one look of all pictures: colours, sizes, grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array: TypeAlias = NDArray[np.float64]

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"
LINES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PURPLE, ":"), ("black", (0, (5, 1, 1, 1))))
"""Colours and dashes for lines that are told apart: in print, and without colours, too."""


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
        _dress(ax)
    return figure, axes


def axes_or_new(ax: Axes | None) -> Axes:
    """The Axes that are given, or a new figure's: they look alike."""
    if ax is None:
        return new_figure()[1][0]
    _dress(ax)
    return ax


def _dress(ax: Axes) -> None:
    ax.grid(True, color="#E4E4E4", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def finished(ax: Axes, *, legend: bool = True, markerscale: float = 1.0) -> Axes:
    """The Axes with names and a legend that fit what is drawn on them.

    Args:
        ax: With everything on it, its limits and its names.
        legend: Whether to name the curves that have a label.
        markerscale: Of the legend's points over those of the curves.
    """
    from ._legend import place_legend
    from ._names import fit_names

    figure = ax.figure.figure
    engine = figure.get_layout_engine()
    if engine is not None:  # how large the axes will be
        engine.execute(figure)
    fit_names(ax)
    if legend:
        place_legend(ax, markerscale)
    return ax
