"""Data, and what was fitted to them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .._insight.design import unpack
from ._look import BLUE, GREY, ORANGE, PURPLE, axes_or_new, finished
from .descents import path_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .._loop.history import History


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
    ax = axes_or_new(ax)
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
    return finished(ax, markerscale=3 if many else 1)


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
    ax = axes_or_new(ax)
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
    ax = axes_or_new(ax)
    y, p = np.asarray(targets, dtype=float).ravel(), np.asarray(predicted, dtype=float).ravel()
    ends = [min(y.min(), p.min()), max(y.max(), p.max())]
    ax.plot(ends, ends, color=GREY, linewidth=1.5, label="prediction = target")
    ax.plot(y, p, "o", color=ORANGE, markersize=6, label="data")
    ax.set_xlabel("target")
    ax.set_ylabel("prediction")
    return finished(ax)


def fit_line(model: Any, data: Any, *, ax: Axes | None = None, label: str = "fitted") -> Axes:
    """Data of one variable, and what a model makes of it: a line or a curve.

    Args:
        model: What is called with x, (n, 1) or (n,) as in the data, and gives one value for each.
        data: ``(x, y)``, or a ``TensorDataset`` of these.
        ax: Where to draw.
        label: The curve's name in the legend.

    Raises:
        ValueError: x has more than one column.

    Example:
        >>> from gdcore.plotting import fit_line
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> ax = fit_line(gdcore.nn.LinearRegression(), (x, 2 * x), label="at the start")
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['data', 'at the start']
    """
    x, y, _ = unpack(data)
    grid = _grid(x)
    with torch.no_grad():
        values = model(grid)
    return _over_data(x, y, grid, values, ax, label)


def _over_data(
    x: Tensor, y: Tensor, grid: Tensor, values: Tensor, ax: Axes | None, label: str = "fitted"
) -> Axes:
    plain = [tensor.detach().cpu().flatten().numpy() for tensor in (x, y, grid, values)]
    return fitted_curve(*plain, ax=ax, label=label)


def _grid(x: Tensor) -> Tensor:
    """Points along the data's range and a little beyond, in x's own shape."""
    if x.dim() not in (1, 2) or x.numel() != len(x):
        raise ValueError(f"x: expected one variable, (n,) or (n, 1), got shape {tuple(x.shape)}")
    low, high = x.min().item(), x.max().item()
    margin = 0.05 * (high - low or 1.0)
    points = torch.linspace(low - margin, high + margin, 201, dtype=x.dtype, device=x.device)
    return points.reshape(-1, *x.shape[1:])


def fit_animation(
    model: torch.nn.Module,
    data: Any,
    history: History,
    path: str | os.PathLike[str],
    *,
    frames: int = 60,
    ax: Axes | None = None,
) -> Axes:
    """The fitted curve as it moves over the epochs, as an animated GIF.

    It begins with the curve before the first update, after 0 epochs. The epochs shown lie closer at
    the beginning, where more happens.

    Args:
        model: That was fitted; it is not changed.
        data: ``(x, y)`` of one variable, or a ``TensorDataset`` of these.
        history: Of the fit, with recorded parameters (``record_every=1``).
        path: The file to write, ``….gif``.
        frames: At most how many, at ten a second.
        ax: Where to draw.

    Returns:
        The Axes with the last frame.

    Raises:
        ValueError: Nothing was recorded.

    Example:
        >>> import tempfile
        >>> from gdcore.plotting import fit_animation
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> model = gdcore.nn.LinearRegression()
        >>> optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=0.1), torch.nn.MSELoss()
        >>> past = gdcore.fit(model, loss_fn, optimizer, (x, 2 * x), epochs=9, record_every=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ax = fit_animation(model, (x, 2 * x), past, folder + "/fit.gif", frames=2)
        >>> ax.get_title()
        'after 9 epochs'
    """
    from matplotlib.animation import PillowWriter
    from matplotlib.figure import Figure

    x, y, _ = unpack(data)
    places, epochs = path_of(history)
    records = len(epochs)
    spaced = np.geomspace(1, records, max(min(frames, records), 1)) if frames > 1 else [records]
    shown = sorted({round(float(place)) - 1 for place in spaced})
    grid = _grid(x)
    curves = []
    for record in shown:
        values = {
            name: value[record].to(grid.device, history.parameters[name].dtype)
            for name, value in places.items()
        }
        with torch.no_grad():
            curves.append(torch.func.functional_call(model, values, (grid,)).flatten())
    ax = _over_data(x, y, grid, curves[-1], ax)
    targets = y.cpu().numpy()
    spread = float(np.ptp(targets)) or 1.0
    # The curve may begin far away: what the data fill, and as much again, stays in sight.
    ax.set_ylim(float(targets.min()) - spread / 2, float(targets.max()) + spread / 2)
    figure = ax.figure
    if not isinstance(figure, Figure):
        raise ValueError("ax: expected one on a figure itself, got one on a part of a figure")
    curve = ax.lines[-1]
    writer = PillowWriter(fps=10)
    with writer.saving(figure, os.fspath(path), dpi=100):
        for record, values in zip(shown, curves, strict=True):
            curve.set_ydata(values.cpu().numpy())
            ax.set_title(f"after {epochs[record]} epoch{'' if epochs[record] == 1 else 's'}")
            writer.grab_frame()
        for _ in range(10):  # the end stays for a second
            writer.grab_frame()
    return ax
