"""Losses over the epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ._look import BLUE, axes_or_new, finished

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .._loop.history import History


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
        log_steps: Count steps from 1 on a logarithmic scale too, for a loss that falls at once.

    Example:
        >>> from gdcore.plotting import loss_curve
        >>> ax = loss_curve([4.0, 1.0, 0.25])
        >>> ax.get_yscale()
        'log'
    """
    ax = axes_or_new(ax)
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
    ax.set_ylabel("loss")
    return finished(ax)


def history(history: History, *, ax: Axes | None = None, label: str | None = None) -> Axes:
    """The loss of every epoch of a fit.

    Args:
        history: What `gdcore.fit` returned.
        ax: Where to draw.
        label: A name in the legend.

    Example:
        >>> from gdcore.plotting import history
        >>> model = gdcore.nn.LinearRegression()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> found = gdcore.fit(model, torch.nn.MSELoss(), optimizer, (x, x), epochs=50)
        >>> history(found).get_xlabel()
        'epoch'
    """
    return loss_curve(history.loss.double().numpy(), ax=ax, label=label)
