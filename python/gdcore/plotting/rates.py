"""Which learning rate: what the curvature says, and what a sweep found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._insight.figures import rate_figure, rate_figures
from ._look import BLUE, GREEN, GREY, LINES, ORANGE, axes_or_new, finished

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .._curvature import Curvature
    from .._sweep import Sweep

_MOST_DIRECTIONS = 60
_MOST_LEFT = 1.5
"""Share of the distance up to which it is drawn."""


def curvature(curvature: Curvature, *, ax: Axes | None = None) -> Axes:
    """How much of the distance to the optimum an epoch leaves, over the learning rate.

    Each direction of curvature λ is left |1 - lr λ| of its distance; the slowest decides. Where the
    steepest passes 1, training diverges.

    Args:
        curvature: From `gdcore.curvature`.
        ax: Where to draw.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> found = gdcore.curvature(gdcore.nn.LinearRegression(), torch.nn.MSELoss(), (x, x))
        >>> found.plot().get_xlabel()
        'learning rate (parameter² / loss)'
    """
    ax = axes_or_new(ax)
    steepest, flattest = curvature.largest_curvature, curvature.smallest_curvature
    limit = curvature.largest_stable_lr()
    end = 1.25 * limit if math.isfinite(limit) else 1.0
    rates = np.linspace(0.0, end, 1001)
    ax.set_xlim(0.0, end)
    ax.set_ylim(0.0, _MOST_LEFT)
    between = [] if curvature.local else curvature.curvatures.unique().tolist()[1:-1]
    shown = between[:: max(len(between) // _MOST_DIRECTIONS, 1)]
    for i, value in enumerate(shown):
        name = "directions between" if i == 0 else None
        ax.plot(rates, np.abs(1 - rates * value), color=GREY, linewidth=0.7, alpha=0.6, label=name)
    lines = [(steepest, ORANGE, "--", "steepest direction")]
    if flattest < 0:  # no rate shrinks the distance there
        lines.insert(0, (flattest, BLUE, "-", "direction that bends down most"))
    elif flattest != steepest:
        found = "" if curvature.exact or curvature.local else " found"
        lines.insert(0, (flattest, BLUE, "-", f"flattest direction{found}"))
    else:
        lines = [(steepest, BLUE, "-", "every direction")]
    for value, color, dashes, name in lines:
        left = np.abs(1 - rates * value)
        seen = left <= _MOST_LEFT * (1 + 1e-9)  # above, there may be a legend
        ax.plot(rates[seen], left[seen], color=color, linestyle=dashes, linewidth=2, label=name)
    known = curvature.exact and curvature.rank > 0
    stable, *best = rate_figures(*([limit, curvature.best_lr] if known else [limit]))
    if math.isfinite(limit):
        ax.axvspan(limit, end, color=ORANGE, alpha=0.12, linewidth=0)
        label = f"largest stable, {stable}"
        ax.plot([limit], [1.0], "X", color=ORANGE, markersize=9, label=label)
    if known:
        lowest = [curvature.best_lr], [curvature.rate]
        label = f"best, {best[0]}: leaves {_share(curvature.rate)}"
        ax.plot(*lowest, "o", color=GREEN, markersize=9, label=label, clip_on=False)
    near = ", near these parameters" if curvature.local else ""
    ax.set_xlabel(f"learning rate (parameter² / loss){near}")
    ax.set_ylabel("share of the distance left by an epoch")
    if math.isfinite(limit):
        _write_diverges(ax, limit, end)
    return finished(ax)


def _write_diverges(ax: Axes, limit: float, end: float) -> None:
    """Within the strip of rates that diverge: upwards where it is narrow."""
    from matplotlib.patheffects import withStroke

    at = (limit + end) / 2
    word = ax.text(at, 0.06, "diverges", ha="center", color=ORANGE, clip_on=True)
    word.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    share = (end - limit) / end
    if word.get_window_extent().width > 0.9 * share * ax.get_window_extent().width:
        word.set_rotation(90)


def _share(rate: float) -> str:
    if rate == 0:
        return "nothing"
    return f"{rate:.3g}" if rate < 0.9995 else f"1 - {1 - rate:.1g}"


def sweep(sweep: Sweep, *, ax: Axes | None = None) -> Axes:
    """The final loss of each run against its learning rate, or against what else was varied first.

    A line for each combination of the other settings. Runs that diverged, or ended far above where
    they began, are crosses above the others; a vertical line is the largest stable rate of
    full-batch SGD with these settings.

    Args:
        sweep: From `gdcore.sweep`.
        ax: Where to draw.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> model = gdcore.nn.LinearRegression()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> rates, loss_fn = [0.01, 0.1], torch.nn.MSELoss()
        >>> found = gdcore.sweep(model, loss_fn, optimizer, (x, x), lr=rates, epochs=9)
        >>> found.plot().get_ylabel()
        'loss after 9 epochs'
    """
    ax = axes_or_new(ax)
    along = next((key for key in ("lr", *sweep.varied) if key in sweep.varied), None)
    at = np.asarray(sweep.settings[along] if along else range(len(sweep)), dtype=float)
    others = [key for key in sweep.varied if key != along]
    groups: dict[tuple[float, ...], list[int]] = {}
    for run in np.argsort(at, kind="stable").tolist():
        groups.setdefault(tuple(sweep.settings[key][run] for key in others), []).append(run)
    groups = dict(sorted(groups.items()))
    final, lost = sweep.final_loss.numpy(), _lost(sweep)
    finite = final[~lost]
    positive = finite[finite > 0]
    logarithmic = len(positive) == len(finite) and len(finite) > 0
    top = _above(finite, logarithmic)
    limits = sweep.largest_stable_lr if along == "lr" else None
    if along is not None and len(at) and at.min() > 0 and at.max() / at.min() > 20:
        ax.set_xscale("log")
    for i, (values, runs) in enumerate(groups.items()):
        color, dashes = _line(i, len(groups))
        name = ", ".join(f"{key} {value:g}" for key, value in zip(others, values, strict=True))
        shown = [run for run in runs if not lost[run]]
        gone = [run for run in runs if lost[run]]
        few = len(shown) <= 25
        labelled = i % max(len(groups) // 5, 1) == 0
        ax.plot(
            at[shown],
            final[shown],
            color=color,
            linestyle=dashes,
            marker="o" if few else "",
            markersize=4,
            label=(name or None) if labelled else None,
        )
        ax.plot(at[gone], np.full(len(gone), top), "x", color=color, markersize=5)
        if limits is not None and labelled:
            ax.axvline(float(limits[runs[0]]), color=color, linewidth=1.2, linestyle=dashes)
    if lost.any():
        ax.plot([], [], "x", color=GREY, label="diverging")
    if limits is not None:
        one = f", {rate_figure(float(limits[0]))}" if len(groups) == 1 else ""
        ax.plot([], [], color=GREY, linewidth=1.2, label=f"largest stable rate{one}")
    if logarithmic:
        ax.set_yscale("log")
    if not len(finite):  # the height of the crosses means nothing
        ax.set_yticks([])
    unit = " (parameter² / loss)" if limits is not None else ""
    names = {"lr": f"learning rate{unit}", None: "run", "initial": "start"}
    ax.set_xlabel(names.get(along, str(along).replace("_", " ")))
    ax.set_ylabel(f"loss after {sweep.loss.shape[1]:,} epochs")
    return finished(ax)


def _lost(sweep: Sweep) -> NDArray[np.bool_]:
    """Which runs go above the picture: those past all numbers, and those on their way there."""
    final, begun = sweep.final_loss.numpy(), sweep.loss[:, 0].numpy()
    return (sweep.diverged.numpy() >= 0) | ~(final <= 10 * begun)


def _above(finite: Any, logarithmic: bool) -> float:
    """A height above all losses that are drawn."""
    if not len(finite):
        return 1.0
    low, high = float(finite.min()), float(finite.max())
    if logarithmic:
        return float(high * max((high / low) ** 0.08, 1.5))
    return high + 0.08 * (high - low or 1.0)


def _line(i: int, count: int) -> tuple[Any, Any]:
    if count <= len(LINES):
        return LINES[i]
    from matplotlib import colormaps

    return colormaps["cividis"](0.95 * i / (count - 1)), "-"
