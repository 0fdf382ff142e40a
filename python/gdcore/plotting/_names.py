"""Names and numbers of axes: no wider than there is room for, and none over another."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from matplotlib.ticker import LogFormatterSciNotation, ScalarFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

SIZES = (10.0, 9.0, 8.0, 7.0, 6.0)
"""Of letters, in points: the first with which a text fits."""

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class _ScaleInName(ScalarFormatter):
    """Numbers with their common factor and offset in the axis's name, where they hide nothing."""

    def __init__(self) -> None:
        super().__init__(useMathText=False)
        self._name = self._shown = ""

    def set_locs(self, locs: list[float]) -> None:
        super().set_locs(locs)
        label = cast("Axis", self.axis).label
        if label.get_text() != self._shown:  # it was named anew
            self._name = label.get_text()
        self._shown = _scaled(self._name, super().get_offset())
        label.set_text(self._shown)

    def get_offset(self) -> str:
        return ""


class _PlainLog(LogFormatterSciNotation):
    """30 instead of 3 × 10¹, which is too wide beside small axes."""

    def __call__(self, value: float, place: int | None = None) -> str:
        return f"{value:g}" if super().__call__(value, place) else ""


def _write_plainly(axis: Axis) -> None:
    """Where a logarithmic axis shows so little that there are numbers between the powers."""
    low, high = sorted(axis.get_view_interval())
    if axis.get_scale() == "log" and low >= 1e-3 and high < 1e5 and high < 30 * low:
        axis.set_major_formatter(_PlainLog())
        axis.set_minor_formatter(_PlainLog(labelOnlyBase=False))


def _scaled(name: str, scale: str) -> str:
    """The name of what the numbers are: with a scale 1e-6+2, ``weight - 2 (10⁻⁶)``."""
    found = re.fullmatch(r"(?:1e(-?\d+))?(?:([+-])(.+))?", scale.replace("\u2212", "-"))
    if found is None:
        return f"{name} ({scale})"
    magnitude, sign, offset = found.groups()
    if offset:
        name += f" {'-' if sign == '+' else '+'} {offset}"
    if not magnitude:
        return name
    factor = f"10{magnitude.translate(_RAISED)}"
    before, opened, unit = name.partition(" (")
    return f"{before} ({factor} {unit}" if opened else f"{name} ({factor})"


def fit_names(ax: Axes) -> None:
    """Move scales into the names, and write these smaller where they are longer than the axes."""
    axes: list[tuple[Axis, bool]] = [
        (ax.xaxis, len(ax.get_shared_x_axes().get_siblings(ax)) > 1),
        (ax.yaxis, len(ax.get_shared_y_axes().get_siblings(ax)) > 1),
    ]
    for axis, shared in axes:
        if type(axis.get_major_formatter()) is ScalarFormatter and not shared:
            axis.set_major_formatter(_ScaleInName())
        _write_plainly(axis)
    box = ax.get_window_extent()
    for (axis, _), length in zip(axes, (box.width, box.height), strict=True):
        label = axis.label
        for size in SIZES[1:-1]:
            written = label.get_window_extent()
            if (written.width if axis is ax.xaxis else written.height) <= length:
                break
            label.set_fontsize(min(size, label.get_fontsize()))
