"""Legends that cover no curve and stay within their axes, also where these are small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._look import Array
from ._names import SIZES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend
    from matplotlib.transforms import Bbox

    Cells: TypeAlias = NDArray[np.bool_]

_PLACES = {
    "upper right": (1.0, 1.0),
    "upper left": (0.0, 1.0),
    "lower left": (0.0, 0.0),
    "lower right": (1.0, 0.0),
    "upper center": (0.5, 1.0),
    "lower center": (0.5, 0.0),
    "center right": (1.0, 0.5),
    "center left": (0.0, 0.5),
}
_TOP = ("upper center", "upper left", "upper right")

_CELL = 3.0
"""Points; a curve takes the squares of this size that it passes."""

_SMALLEST_AMONG_CURVES = 8.0
"""Points; below, it is better to make room above the curves."""

_BESIDE = (0.04, 0.08, 0.16)
"""More of the height between the legend and the curves, as words on these reach beyond them."""

_MOST_COLUMNS = 4

_MOST_ROOM = 0.4
"""Share of the height of the axes that a legend may take from the curves."""


def place_legend(ax: Axes, markerscale: float) -> None:
    """Where nothing is, else above everything, else with fewer entries."""
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    box = ax.get_window_extent()

    def made(count: int, size: float, columns: int, place: Any) -> Legend:
        return ax.legend(
            handles[:count],
            labels[:count],
            loc=place,
            fontsize=size,
            ncols=columns,
            markerscale=markerscale,
            frameon=True,
            framealpha=0.9,
            edgecolor="none",
            borderaxespad=0.3,
            columnspacing=1.2,
        )

    taken = _taken(ax, box)
    for count in range(len(handles), 0, -1):
        fitting = []
        for size in SIZES:
            for columns in range(1, min(count, _MOST_COLUMNS) + 1):
                written = made(count, size, columns, "upper left").get_window_extent()
                wide, high = written.width / box.width, written.height / box.height
                if wide > 0.96 or high > 0.96:
                    continue
                if size >= _SMALLEST_AMONG_CURVES:
                    for place in _PLACES:
                        if not _covers(taken, place, wide, high):
                            made(count, size, columns, place)
                            return
                if high <= _MOST_ROOM:
                    fitting.append((high, size, columns))
        if fitting:
            # The largest letters, and of these the lowest.
            high, size, columns = min(fitting, key=lambda each: (-each[1], each[0]))
            wide = made(count, size, columns, _TOP[0]).get_window_extent().width / box.width
            limits, free = ax.get_ylim(), []
            for beside in _BESIDE:
                ax.set_ylim(limits, auto=None)
                _make_room(ax, high + beside)
                taken = _taken(ax, box)
                free = [place for place in _TOP if not _covers(taken, place, wide, high)]
                if free:
                    break
            made(count, size, columns, (free or list(_TOP))[0])
            return
    legend = ax.get_legend()
    if legend is not None:
        legend.remove()


def _make_room(ax: Axes, share: float) -> None:
    """Raise the upper limit, so that this share of the height is above all that was in sight."""
    scale = ax.yaxis.get_transform()
    low, high = scale.transform(np.asarray(ax.get_ylim()))
    top = low + (high - low) / (1 - share)
    ax.set_ylim(top=float(scale.inverted().transform(np.asarray([top]))[0]), auto=None)


def _covers(taken: Cells, place: str, wide: float, high: float) -> bool:
    """Whether a legend of that share of the axes would stand on a curve there."""
    rows, columns = taken.shape
    across, up = _PLACES[place]
    left, low = across * (1 - wide), up * (1 - high)
    beside, below = slice(*_span(left, wide, columns)), slice(*_span(low, high, rows))
    return bool(taken[below, beside].any())


def _span(start: float, length: float, cells: int) -> tuple[int, int]:
    """The cells from there on, and two more on both sides."""
    return max(int(start * cells) - 2, 0), int((start + length) * cells) + 3


def _taken(ax: Axes, box: Bbox) -> Cells:
    """Which squares of the axes hold a curve, a point or a word: (rows, columns), upwards."""
    side = _CELL * ax.figure.dpi / 72
    shape = (int(box.height / side) + 1, int(box.width / side) + 1)
    cells = np.zeros(shape, dtype=bool)

    def take(points: Array) -> None:
        across, up = ((points - (box.x0, box.y0)) // side).astype(int).T
        held = (across >= 0) & (across < shape[1]) & (up >= 0) & (up < shape[0])
        cells[up[held], across[held]] = True

    bounds = np.array([[box.x0, box.y0], [box.x1, box.y1]])
    for line in ax.lines:
        vertices = line.get_transform().transform(np.asarray(line.get_xydata(), dtype=float))
        if line.get_marker() not in ("", "None", None):
            take(vertices[np.isfinite(vertices).all(1)])
        if line.get_linestyle() != "None":
            take(_along(vertices, bounds, side))
    for collection in ax.collections:  # contours
        for path in collection.get_paths():
            for part in path.to_polygons(collection.get_transform(), closed_only=False):
                take(_along(np.asarray(part), bounds, side))
    for text in ax.texts:
        words = text.get_window_extent()
        steps = [np.arange(a, b + side, side) for a, b in (words.intervalx, words.intervaly)]
        take(np.stack(np.meshgrid(*steps), -1).reshape(-1, 2))
    return cells


def _along(vertices: Array, bounds: Array, side: float) -> Array:
    """Points no farther apart than that, where the segments between vertices are within bounds."""
    starts, steps = vertices[:-1], np.diff(vertices, axis=0)
    known = np.isfinite(starts).all(1) & np.isfinite(steps).all(1)
    starts, steps = starts[known], steps[known]
    steps = np.where(steps == 0, 1e-9, steps)
    crossings = (bounds[:, None] - starts) / steps
    enters = np.clip(crossings.min(0).max(1), 0, 1)
    leaves = np.clip(crossings.max(0).min(1), 0, 1)
    inside = leaves > enters
    starts, steps, enters = starts[inside], steps[inside], enters[inside]
    parts = leaves[inside] - enters
    counts = np.ceil(parts * np.hypot(*steps.T) / side).astype(int) + 1
    which = np.repeat(np.arange(len(starts)), counts)
    place = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = enters[which] + parts[which] * place / np.maximum(counts[which] - 1, 1)
    return np.asarray(starts[which] + share[:, None] * steps[which])
