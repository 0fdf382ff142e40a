"""A history as a notebook shows it: a small table, and the loss as a line."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .history import History

_WIDTH, _HEIGHT, _POINTS = 240, 48, 120


def table(history: History) -> str:
    """HTML that needs neither scripts nor styles of its own."""
    epochs = len(history.loss)
    rows = [("epochs", f"{epochs}{', stopped' if history.stopped else ''}")]
    if epochs:
        rows.append(("loss", f"{history.loss[0]:.6g} → {history.loss[-1]:.6g}"))
    rows += [(f"validation {n}", f"{v[-1]:.6g}") for n, v in history.validation.items() if len(v)]
    rows.append(("time", f"{history.seconds:.3g} s"))
    if history.plan is not None:
        rows.append(("plan", str(history.plan)))
    body = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table>{body}</table>{_line(history)}"


def _line(history: History) -> str:
    """The logarithm of the loss over the epochs, at most so many points."""
    count = len(history.loss)
    positions = (
        [round(i * (count - 1) / (_POINTS - 1)) for i in range(_POINTS)] if count > 1 else []
    )
    losses = history.loss[sorted(set(positions))].tolist() if positions else []
    points = [(i, math.log(v)) for i, v in enumerate(losses) if v > 0 and math.isfinite(v)]
    if len(points) < 2:
        return ""
    low, high = min(v for _, v in points), max(v for _, v in points)
    across, up = _WIDTH / (len(losses) - 1), (_HEIGHT - 4) / ((high - low) or 1)
    path = " ".join(f"{i * across:.1f},{2 + (high - v) * up:.1f}" for i, v in points)
    return (
        f"<svg width='{_WIDTH}' height='{_HEIGHT}' role='img' "
        "aria-label='loss over the epochs, logarithmic'>"
        f"<polyline points='{path}' fill='none' stroke='#0072B2' stroke-width='1.5'/></svg>"
    )
