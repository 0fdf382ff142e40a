"""The way that a fit took down its loss: on a parabola, or across contours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .._curvature import curvature as curvature_of
from ._look import BLUE, GREEN, GREY, ORANGE, Array, axes_or_new, finished
from .parabolas import parabola, within_sight

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .._curvature import Curvature
    from .._loop.history import History


_MARKED = 60
"""Steps with a dot; later ones would run together."""

_NEAREST = 1e-3
"""Losses are drawn as a parabola if they bend more, and are no farther from it: of their range."""


def descent(
    history: History, curvature: Curvature | None = None, *, ax: Axes | None = None
) -> Axes:
    """The way that a fit took down its loss.

    One parameter: the parabola of the loss with the steps on it, numbered by the epochs that led
    there: 0 is the start. Two: contours of the loss with the path across. More: the same in the
    plane of the two slowest directions, in which every other direction has arrived.

    Args:
        history: Of a fit that recorded its parameters (``record_every=1``).
        curvature: Of the same model and data. If not given, it is found from the model, the loss
            function and the data of the fit; these must still be there and unchanged, as a history
            keeps no data.
        ax: Where to draw.

    Raises:
        ValueError: Nothing was recorded; the model is not affine in its parameters; or no curvature
            was given and it can no longer be found, or it is another model's.

    Example:
        >>> from gdcore.plotting import descent
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> model, loss_fn = gdcore.nn.LinearRegression(), torch.nn.MSELoss()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> past = gdcore.fit(model, loss_fn, optimizer, (x, x), epochs=20, record_every=1)
        >>> ax = descent(past)
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('weight', 'bias')
    """
    path, epochs = path_of(history)
    found = _curvature_of(history, curvature)
    if found is None:
        return _through_losses(history, path, epochs, ax)
    path = _trained_only(path, found)
    if found.rank == 0:
        raise ValueError("curvature: expected a direction that is not flat, got none")
    size = sum(value[0].numel() for value in path.values())
    if size == 2 or found.rank > 1:
        return _across_contours(path, found, axes_or_new(ax))
    if size == 1:
        ((name, value),) = path.items()
        steps, best = value.flatten().numpy(), float(found.optimum[name])
    else:
        name, best = "the one direction that is not flat (distance)", 0.0
        steps = found.along_directions(path)[:, 0].numpy()
    bend, lowest = found.largest_curvature, found.optimal_loss
    return parabola(steps, best, bend, lowest, axes_or_new(ax), name, "loss", epochs)


def path_of(history: History) -> tuple[dict[str, Tensor], list[int]]:
    """The recorded parameters in float64, after the start if it is known; and the epochs that led
    to each.
    """
    path = {name: value.double() for name, value in history.parameters.items()}
    epochs = [epoch + 1 for epoch in history.recorded_epochs]
    if not epochs:
        raise ValueError("history: expected recorded parameters, got none; use record_every=1")
    if history.start:
        start = history.start
        path = {name: torch.cat([start[name][None].double(), path[name]]) for name in path}
        epochs = [0, *epochs]
    return path, epochs


def _curvature_of(history: History, given: Curvature | None) -> Curvature | None:
    """The one that is given, or that of what the fit trained if this is still there."""
    found, source = given, history._source
    if found is None:
        trained = None if source is None else source.trained()
        if trained is None:
            return None
        model, loss_fn, data, parameters = trained
        found = curvature_of(model, loss_fn, data, parameters=parameters)
    if found.local:
        raise ValueError(
            "curvature: expected that of a squared error of a model that is affine in its "
            f"parameters, got one that holds at one place only; {found.reason}"
        )
    return found


def _trained_only(path: dict[str, Tensor], curvature: Curvature) -> dict[str, Tensor]:
    """The path without the parameters that stayed where they were."""
    names = curvature.start
    moved = {
        name: value for name, value in path.items() if name in names or (value != value[0]).any()
    }
    if moved.keys() != names.keys():
        raise ValueError(
            f"curvature: expected one over {', '.join(moved)}, got one over {', '.join(names)}"
        )
    return moved


def _through_losses(
    history: History, path: dict[str, Tensor], epochs: list[int], ax: Axes | None
) -> Axes:
    """The parabola through the steps themselves, which the losses of one parameter lie on."""
    size = sum(value[0].numel() for value in path.values())
    missing = "the model, loss function or data of the fit are no longer there, or have changed"
    if size != 1:
        raise ValueError(
            f"curvature: expected gdcore.curvature(model, loss_fn, data) for {size} parameters, "
            f"because {missing}; got None"
        )
    ((name, values),) = path.items()
    steps = values.flatten().numpy()
    known = [i for i, epoch in enumerate(epochs) if epoch < len(history.loss)]
    points = steps[known]
    losses = history.loss.double()[[epochs[i] for i in known]].numpy()
    if len(np.unique(points)) < 3:
        raise ValueError(
            "history: expected three different records for a parabola, got fewer; give the "
            "curvature"
        )
    middle, spread = points.mean(), np.ptp(points)
    scaled = (points - middle) / spread
    a, b, c = np.polyfit(scaled, losses, 2)
    apart = np.abs(np.polyval([a, b, c], scaled) - losses).max()
    # The mean over an epoch's batches is the loss at no place, and may lie on another parabola.
    in_batches = getattr(history.plan, "batch_size", None) or not getattr(history.plan, "rows", 1)
    least = _NEAREST * np.ptp(losses)
    if in_batches or not (a > least and apart <= least):
        raise ValueError(
            "curvature: expected gdcore.curvature(model, loss_fn, data), because the losses are "
            f"not those of a parabola and {missing}; got None"
        )
    best, lowest = middle - spread * b / (2 * a), c - b**2 / (4 * a)
    bend = 2 * a / spread**2
    return parabola(steps, best, bend, lowest, axes_or_new(ax), name, "loss", epochs)


def _across_contours(path: dict[str, Tensor], curvature: Curvature, ax: Axes) -> Axes:
    along = curvature.along_directions(path)
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
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    ax.plot(*steps.T, color=ORANGE, linewidth=1.6)
    ax.plot(*steps[:_MARKED].T, "o", color=ORANGE, markersize=3.5, label="epochs")
    ax.plot([], [], color=GREY, linewidth=0.8, label="equal loss")
    ax.plot(*steps[0], "o", color=BLUE, markersize=8, label="start")
    ax.plot(*center, "*", color=GREEN, markersize=14, label="optimum")
    _contours(ax, first, second, height, curvature.optimal_loss)
    return finished(ax)


def _contours(ax: Axes, first: Array, second: Array, height: Array, lowest: float) -> None:
    """Levels in a constant ratio above the least loss: even steps along every slope."""
    from matplotlib.patheffects import withStroke

    above = height - lowest
    top = float(above.max())
    levels = lowest + top * np.geomspace(1e-4, 1.0, 13)
    lines = ax.contour(first, second, height, levels=levels, colors=GREY, linewidths=0.8)
    labelled = levels[3::3]
    texts = dict(zip(labelled, told_apart(labelled), strict=True))
    above_path = max(line.get_zorder() for line in ax.lines) + 1
    for text in ax.clabel(lines, levels=labelled, fontsize=8, fmt=texts, zorder=above_path):
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])


def told_apart(values: Array) -> list[str]:
    """As numbers of at least three digits, and as many as it takes to tell them apart."""
    texts: list[str] = []
    for digits in range(3, 18):
        texts = [f"{value:.{digits}g}" for value in values]
        if len(set(texts)) == len(texts):
            break
    return texts


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
