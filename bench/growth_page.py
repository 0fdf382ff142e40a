"""The measured part of ``docs/performance.md``: pictures, a table of each curve, the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from page import LOST
from pictures import new_figure
from table import aligned, time_text
from timing import Spread

PAGE, PICTURES = "performance.md", "performance"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
COLOURS = {"gdcore.fit": "C0", "eager": "C1", "JAX": "C2", "limit": "black"}


@dataclass(frozen=True)
class Curve:
    """Seconds of a step against one size.

    Args:
        name: Of its picture; curves of one name share it, side by side.
        title: What stays the same along it.
        axis: What grows.
        at: The sizes.
        seconds: At each of them, by contender.
    """

    name: str
    title: str
    axis: str
    at: Sequence[int]
    seconds: Sequence[Mapping[str, Spread]]

    @property
    def contenders(self) -> list[str]:
        return list(dict.fromkeys(name for point in self.seconds for name in point))

    def of(self, contender: str) -> tuple[list[int], list[Spread]]:
        pairs = zip(self.at, self.seconds, strict=True)
        found = [(at, point[contender]) for at, point in pairs if contender in point]
        return [at for at, _ in found], [spread for _, spread in found]


def draw(curves: Sequence[Curve], file: Path) -> None:
    """Log-log, medians with quartiles; the limit is the dashed line below all."""
    figure = new_figure(4.2 * len(curves) + 0.6, 4.2)
    for axes, curve in zip(
        figure.subplots(1, len(curves), sharey=True, squeeze=False)[0], curves, strict=True
    ):
        for name in curve.contenders:
            at, spreads = curve.of(name)
            middle = [spread.median for spread in spreads]
            style = "--" if name == "limit" else "o-"
            colour = COLOURS[name]
            axes.plot(at, middle, style, color=colour, label=name, markersize=3.5, linewidth=1.4)
            low, high = [s.q25 for s in spreads], [s.q75 for s in spreads]
            axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
        if curve.name == "threads":
            axes.set_xticks(curve.at)
        else:
            axes.set_xscale("log", base=10 if curve.name == "rows" else 2)
        axes.set_yscale("log")
        axes.set_title(curve.title, fontsize=10)
        axes.set_xlabel(curve.axis)
        axes.grid(which="major", alpha=0.3)
    first = figure.axes[0]
    first.set_ylabel("seconds per step")
    first.legend(fontsize=8)
    figure.savefig(file, dpi=130)


def faster(curve: Curve, point: Mapping[str, Spread]) -> list[str]:
    """The peers that are faster than gdcore at a point."""
    ours = point[curve.contenders[0]].median
    return [name for name, s in point.items() if name != "limit" and s.median < ours]


def curve_table(curve: Curve) -> list[str]:
    """Every point in numbers, the last column the share of the limit that gdcore reaches; a peer
    that is faster is bold, and its row marked."""
    names = curve.contenders
    ours = names[0]
    rows = [[curve.axis, *names, *(["share"] if "limit" in names else [])]]
    for at, point in zip(curve.at, curve.seconds, strict=True):
        won = faster(curve, point)
        times = {name: time_text(spread.median) for name, spread in point.items()}
        times |= {name: f"**{times[name]}**" for name in won}
        cells = [f"{LOST} {at}" if won else str(at), *(times.get(name, "") for name in names)]
        if "limit" in names:
            share = f"{100 * point['limit'].median / point[ours].median:.0f} %"
            cells.append(share if "limit" in point else "")
        rows.append(cells)
    return [f"{curve.title}:", "", *aligned(rows), ""]


def measured_part(
    curves: Sequence[Curve], described: Mapping[str, Any], rates: Sequence[str]
) -> list[str]:
    """From the machine to the last table."""
    lines = [
        f"Measured {described['date']} on {described['cpu']}, {described['usable_cores']} cores, "
        f"load {described['load_average']:.1f} at the start; torch {described['torch']}, "
        f"JAX {described['jax'] or 'not installed'}, gdcore {described['gdcore']} "
        f"({described['gdcore_instruction_set']}, {described['gdcore_threads']} threads).",
        "",
        *(f"- {rate}" for rate in rates),
        "",
        f"Every contender came to what float64 comes to. {LOST} and bold: a peer is faster.",
        "",
    ]
    for name in dict.fromkeys(curve.name for curve in curves):
        together = [curve for curve in curves if curve.name == name]
        lines += [f"### Time per step against {together[0].axis}", ""]
        lines += [f"![{together[0].axis}]({PICTURES}/{name}.png)", ""]
        for curve in together:
            lines += curve_table(curve)
    return lines


def replaced(page: str, part: Sequence[str]) -> str:
    """The page with what stands between the marks replaced.

    Raises:
        ValueError: The page lacks a mark.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE}: expected the marks {BEGIN} and {END}")
    return "\n".join([f"{before}{BEGIN}", "", *part, f"{END}{after}"])


def write(
    curves: Sequence[Curve], described: Mapping[str, Any], rates: Sequence[str], folder: Path
) -> None:
    """The pictures, and the page round what is written by hand in it."""
    pictures = folder / PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(curve.name for curve in curves):
        draw([curve for curve in curves if curve.name == name], pictures / f"{name}.png")
    page = folder / PAGE
    old = page.read_text() if page.exists() else f"{BEGIN}\n{END}\n"
    page.write_text(replaced(old, measured_part(curves, described, rates)))
