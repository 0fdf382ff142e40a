"""The way that a fit took down its loss: on a parabola, or across contours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ._look import BLUE, GREEN, GREY, ORANGE, Array, axes_or_new
from .parabolas import parabola, within_sight

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .._curvature import Curvature
    from .._loop.history import History


_MARKED = 60
"""Steps with a dot; later ones would run together."""


def descent(
    history: History, curvature: Curvature | None = None, *, ax: Axes | None = None
) -> Axes:
    """The way that a fit took down its loss.

    One parameter: the parabola of the loss with the steps on it. Two: contours of the loss with the
    path across. More: the same in the plane of the two slowest directions, in which every other
    direction has arrived.

    Args:
        history: Of a fit that recorded its parameters (``record_every=1``).
        curvature: Of the same model and data; needed for two parameters and more. Found before the
            fit, it also gives the place where the path began.
        ax: Where to draw.

    Raises:
        ValueError: Nothing was recorded, or the curvature is missing or another model's.

    Example:
        >>> from gdcore.plotting import descent
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> model, loss_fn = gdcore.nn.LinearRegression(), torch.nn.MSELoss()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> found = gdcore.curvature(model, loss_fn, (x, x))
        >>> past = gdcore.fit(model, loss_fn, optimizer, (x, x), epochs=20, record_every=1)
        >>> ax = descent(past, found)
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('weight', 'bias')
    """
    recorded = {name: value.double() for name, value in history.parameters.items()}
    if not recorded or not len(next(iter(recorded.values()))):
        raise ValueError("history: expected recorded parameters, got none; use record_every=1")
    size = sum(value[0].numel() for value in recorded.values())
    if size == 1:
        return _along_parabola(history, recorded, curvature, axes_or_new(ax))
    if curvature is None:
        raise ValueError(f"curvature: expected one for {size} parameters, got None")
    return _across_contours(history, recorded, curvature, axes_or_new(ax))


def _with_start(
    history: History, recorded: dict[str, Tensor], curvature: Curvature
) -> dict[str, Tensor]:
    """The records after the place where the curvature was found, if the path began there."""
    start = curvature.start
    began = float(curvature.loss({name: value[None] for name, value in start.items()})[0])
    first = float(history.loss[0])
    if abs(began - first) > 1e-3 * abs(first):
        return recorded
    return {name: torch.cat([start[name][None], value]) for name, value in recorded.items()}


def _along_parabola(
    history: History, recorded: dict[str, Tensor], curvature: Curvature | None, ax: Axes
) -> Axes:
    """The parabola through the steps themselves, or the curvature's."""
    ((name, path),) = recorded.items()
    if curvature is not None:
        path = _with_start(history, recorded, curvature)[name]
        best = float(curvature.optimum[name])
        bend, lowest = curvature.largest_curvature, curvature.optimal_loss
    else:
        every = history.record_every or 1
        losses = history.loss.double()[1::every][: len(path)]
        points, ends = path.reshape(len(path), -1)[: len(losses), 0].numpy(), losses.numpy()
        if len(np.unique(points)) < 3:
            raise ValueError(
                "history: expected three different records for a parabola, got fewer; give the "
                "curvature"
            )
        middle, spread = points.mean(), np.ptp(points)
        a, b, c = np.polyfit((points - middle) / spread, ends, 2)
        bend, best = 2 * a / spread**2, middle - spread * b / (2 * a)
        lowest = c - b**2 / (4 * a)
    return parabola(path.flatten().numpy(), best, bend, lowest, ax, name, "loss")


def _across_contours(
    history: History, recorded: dict[str, Tensor], curvature: Curvature, ax: Axes
) -> Axes:
    path = _with_start(history, recorded, curvature)
    along = curvature.along_directions(path)
    if along.shape[1] < 2:
        raise ValueError("curvature: expected two directions that are not flat, got fewer")
    two = sum(value[0].numel() for value in path.values()) == 2
    if two:
        columns = torch.cat([value.reshape(len(value), -1) for value in path.values()], 1)
        center = torch.cat([curvature.optimum[name].reshape(-1) for name in path])
        names = _element_names(path)
    else:
        columns, center = along[:, -2:].flip(1), torch.zeros(2, dtype=torch.float64)
        names = ["slowest direction (distance)", "second slowest (distance)"]
    steps = columns.numpy()
    kept = within_sight(np.linalg.norm(along.numpy(), axis=1))
    steps = steps[:kept]
    grids = []
    for axis in range(2):
        ends = np.append(steps[:, axis], float(center[axis]))
        margin = 0.15 * (np.ptp(ends) or 1.0)
        grids.append(np.linspace(ends.min() - margin, ends.max() + margin, 200))
    first, second = np.meshgrid(*grids)
    if two:
        flat = torch.from_numpy(np.stack([first.ravel(), second.ravel()], 1))
        height = curvature.loss(_as_parameters(flat, path)).numpy().reshape(first.shape)
    else:
        slow = curvature.curvatures[-2:].flip(0).tolist()
        height = curvature.optimal_loss + (slow[0] * first**2 + slow[1] * second**2) / 2
    _contours(ax, first, second, height, curvature.optimal_loss)
    ax.plot(*steps.T, color=ORANGE, linewidth=1.6)
    ax.plot(*steps[:_MARKED].T, "o", color=ORANGE, markersize=3.5, label="epochs")
    ax.plot([], [], color=GREY, linewidth=0.8, label="equal loss")
    ax.plot(*steps[0], "o", color=BLUE, markersize=8, label="start")
    ax.plot(*center, "*", color=GREEN, markersize=14, label="optimum")
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    ax.legend(frameon=True, framealpha=0.9, edgecolor="none")
    return ax


def _contours(ax: Axes, first: Array, second: Array, height: Array, lowest: float) -> None:
    """Levels in a constant ratio above the least loss: even steps along every slope."""
    above = height - lowest
    top = float(above.max())
    levels = lowest + top * np.geomspace(1e-4, 1.0, 13)
    lines = ax.contour(first, second, height, levels=levels, colors=GREY, linewidths=0.8)
    ax.clabel(lines, levels=levels[3::3], fontsize=8, fmt=lambda value: f"{value:.3g}")


def _element_names(path: dict[str, Tensor]) -> list[str]:
    names = []
    for name, value in path.items():
        count = value[0].numel()
        names += [name] if count == 1 else [f"{name}[{i}]" for i in range(count)]
    return names


def _as_parameters(flat: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    sizes = [value[0].numel() for value in like.values()]
    parts = flat.split(sizes, 1)
    return {
        name: part.reshape(len(flat), *value.shape[1:])
        for (name, value), part in zip(like.items(), parts, strict=True)
    }
