"""The page that a run gives: machine, limits, a table for each suite, what gdcore loses, goals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import limits
from case import FLOOR, OURS
from goals import Result
from table import Table, aligned, digits, time_text
from timing import Measured, Row

LOST = "▼"
# The order of columns; what is not here comes where it first appears, before these.
PEERS = (
    "eager",
    "foreach",
    "fused",
    "compile",
    "the seed's loop",
    "by hand",
    "NumPy",
    "JAX",
    "scikit-learn",
)
# Processes that were running, on average of the last minute.
BUSY = 0.7
BUSY_WARNING = (
    "**The machine was busy:** others interrupt long samples more than short ones, "
    "so ratios may flatter gdcore."
)


def columns(measured: Iterable[Measured]) -> list[str]:
    """Contenders beside the first."""
    names = list(dict.fromkeys(row.contender for m in measured for row in m.rows[1:]))
    names += [peer for m in measured for peer in m.missing if peer not in names]
    own = [name for name in names if name not in PEERS]
    return list(dict.fromkeys([*own, *(peer for peer in PEERS if peer in names)]))


def lost(row: Row) -> bool:
    """Whether a peer is faster than gdcore."""
    peer = row.contender != FLOOR and not row.contender.startswith(OURS)
    return peer and row.ratio.median < 1


def ratio_text(row: Row | None) -> str:
    if row is None:
        return ""
    return f"**{digits(row.ratio.median)}**" if lost(row) else digits(row.ratio.median)


def case_cells(m: Measured, names: Sequence[str], bounded: bool) -> list[str]:
    mark = f"{LOST} " if any(lost(row) for row in m.rows[1:]) else ""
    cells = [f"{mark}{m.name}", f"{time_text(m.rows[0].seconds.median)}/{m.unit}"]
    cells += [m.missing.get(name) or ratio_text(m.find(name)) for name in names]
    if bounded:
        share = "" if m.bound is None else f"{100 * m.bound.share.median:.0f} % of {m.bound.name}"
        cells.append(share)
    return cells


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def summary(measured: Sequence[Measured], names: Sequence[str], bounded: bool) -> list[list[str]]:
    """Geometric mean and extremes over the suite, for contenders that took part everywhere."""
    rows = []
    for what, of in (("geometric mean", geometric_mean), ("least", min), ("greatest", max)):
        cells = [what, ""]
        for name in names:
            found = [row.ratio.median for m in measured if (row := m.find(name)) is not None]
            cells.append(digits(of(found)) if found else "")
        rows.append([*cells, ""] if bounded else cells)
    return rows


def compile_text(measured: Sequence[Measured]) -> list[str]:
    """How long compilers took before their first result."""
    taken: dict[str, list[float]] = {}
    for row in (row for m in measured for row in m.rows):
        if row.compile_seconds is not None:
            taken.setdefault(row.contender, []).append(row.compile_seconds)
    return [
        f"{name} took {time_text(min(seconds))} to {time_text(max(seconds))} for its first call, "
        "compiling included; that is not in the ratio."
        for name, seconds in taken.items()
    ]


def suite_text(suite: str, measured: Sequence[Measured], *, summarised: bool) -> list[str]:
    """One table: gdcore's time, then how many times that the others take."""
    names, bounded = columns(measured), any(m.bound is not None for m in measured)
    heading = ["case", "gdcore", *names]
    rows = [heading + (["limit"] if bounded else [])]
    if not summarised:
        rows += [case_cells(m, names, bounded) for m in measured]
    if len(measured) > 1:
        rows += summary(measured, names, bounded)[: None if summarised else 1]
    least = min(m.rounds for m in measured)
    counted = [f"{len(measured)} cases, at least {least} rounds", ""] if summarised else []
    compiling = [f"{line}\n" for line in compile_text(measured)]
    return [f"## {suite}", "", *counted, *aligned(rows), "", *compiling]


def table_text(table: Table) -> list[str]:
    lines = [f"## {table.suite}", "", table.heading, "", *aligned(table.rows), ""]
    return lines + [f"{note}\n" for note in table.notes]


def lost_text(measured: Sequence[Measured]) -> list[str]:
    """Where something is faster than gdcore."""
    found = [
        f"- {m.suite}, {m.name}: {row.contender} takes {digits(row.ratio.median)} of gdcore's time"
        for m in measured
        for row in m.rows[1:]
        if lost(row)
    ]
    return ["## Faster than gdcore", "", *(found or ["Nothing that was measured."]), ""]


def goals_text(results: Sequence[Result], quick: bool) -> list[str]:
    """The goals whose cases were run, what was measured, and whether they are met."""
    rows = [["goal", "bound", "measured", "met"]]
    for result in results:
        goal = result.goal
        bound = f"{'≤' if goal.at_most else '≥'} {goal.bound:g} {goal.unit}"
        if result.measured is not None:
            met = "yes" if result.met else "**no**"
            rows.append([goal.what, bound, f"{digits(result.measured)} {goal.unit}", met])
        elif result.missing is not None:
            rows.append([goal.what, bound, f"not measured: {result.missing}", ""])
    if len(rows) == 1:
        return []
    note = ["An indication only: the run was quick.", ""] if quick else []
    return ["## Goals", "", *note, *aligned(rows), ""]


def machine_text(machine: dict[str, Any], rates: Sequence[limits.Rate], quick: bool) -> list[str]:
    """What the run was measured on, and how to read the tables."""
    cache = machine["last_level_cache_bytes"]
    known = "of unknown size" if cache is None else f"{cache / 2**20:.0f} MiB"
    return [
        "# gdcore's bench" + (", quick" if quick else ""),
        "",
        f"{machine['cpu']}, {machine['usable_cores']} cores, last-level cache {known}, "
        f"load {machine['load_average']:.1f} at the start; {machine['date']}",
        "",
        f"torch {machine['torch']} ({machine['torch_instruction_set']}, "
        f"{machine['torch_threads']} threads), NumPy {machine['numpy']}, "
        f"JAX {machine['jax'] or 'not installed'}, "
        f"scikit-learn {machine['scikit_learn'] or 'not installed'}, "
        f"gdcore {machine['gdcore']} ({machine['gdcore_instruction_set']})",
        "",
        *([BUSY_WARNING, ""] if machine["load_average"] > BUSY else []),
        "Limits of this machine, median and quartiles:",
        "",
        *(f"- {line}" for line in limits.rates_text(rates)),
        "",
        "In the tables a time is gdcore's, median over rounds; a number is how many times that "
        f"time a contender takes, round by round. {LOST} and bold: faster than gdcore.",
        "",
    ]
