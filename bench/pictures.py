"""Pictures of a run: how many times gdcore's time every contender takes, and shares of limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from page import PEERS
from timing import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "o^vDsP*Xh"
ROW_INCHES = 0.22
# Per cent.
MOST_SHOWN = 130


def new_figure(width: float, height: float) -> Figure:
    """Without a window, on any machine."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def name_cases(axes: Axes, measured: Sequence[Measured]) -> None:
    names = [f"{m.suite}: {m.name}" for m in measured]
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)


def ratios(measured: Sequence[Measured], file: Path) -> None:
    """A row for each case that has one, a mark for each peer; left of the line a peer is faster."""
    measured = [m for m in measured if any(m.find(peer) for peer in PEERS)]
    figure = new_figure(9, 1.5 + ROW_INCHES * len(measured))
    axes = figure.subplots()
    for index, peer in enumerate(PEERS):
        points = [
            (row.ratio.median, y)
            for y, m in enumerate(measured)
            if (row := m.find(peer)) is not None
        ]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, MARKERS[index], label=peer, markersize=4.5, alpha=0.8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("times gdcore's time")
    name_cases(axes, measured)
    figure.legend(loc="outside upper center", ncols=5, fontsize=8)
    figure.savefig(file, dpi=150)


def shares(measured: Sequence[Measured], file: Path) -> None:
    """What part of its limit each case reaches, with quartiles."""
    bounded = [(m, m.bound) for m in measured if m.bound is not None]
    figure = new_figure(8, 1 + ROW_INCHES * len(bounded))
    axes = figure.subplots()
    for y, (_, bound) in enumerate(bounded):
        share = bound.share
        axes.barh(y, 100 * share.median, color="C0", alpha=0.6)
        axes.plot([100 * share.q25, 100 * share.q75], [y, y], color="C0", linewidth=2)
        # Beside the axes, where nothing is drawn.
        said = f"{100 * share.median:.0f} % of {bound.name}"
        axes.text(1.01, y, said, va="center", fontsize=7, transform=axes.get_yaxis_transform())
    axes.axvline(100, color="black", linewidth=1)
    # A limit that was disturbed makes a share of any size.
    axes.set_xlim(0, MOST_SHOWN)
    axes.set_xlabel("% of the limit in the same rounds")
    name_cases(axes, [m for m, _ in bounded])
    figure.savefig(file, dpi=150)


def save(measured: Sequence[Measured], folder: Path) -> list[Path]:
    """Both pictures, where there is something to draw and matplotlib to draw it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return []
    found = []
    if any(m.find(peer) for m in measured for peer in PEERS):
        found.append(folder / "ratios.png")
        ratios(measured, found[-1])
    if any(m.bound is not None for m in measured):
        found.append(folder / "shares.png")
        shares(measured, found[-1])
    return found
