"""What was measured, as tables to read and as data to keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import small_models
from goals import Result
from memory import past_cache, share_of_bandwidth
from timing import Measured, Spread

SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}


# Processes that were running, on average of the last minute.
BUSY = 0.7
BUSY_WARNING = (
    "The machine was busy: others interrupt long samples more than short ones, "
    "so ratios may flatter gdcore."
)


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def time_text(seconds: float, unit: str | None = None) -> str:
    """In the unit given, or in the largest of which there is at least one."""
    unit = unit or unit_of(seconds)
    return f"{digits(seconds / SECONDS[unit])} {unit}"


def unit_of(seconds: float) -> str:
    return next((unit for unit, size in SECONDS.items() if seconds >= size), "ns")


def time_spread(seconds: Spread) -> str:
    unit = unit_of(seconds.median)
    low, high = (digits(value / SECONDS[unit]) for value in (seconds.q25, seconds.q75))
    return f"{low} to {high}"


def table(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Columns under a heading; the first ``left`` are text, the others numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(cells: Iterable[str]) -> str:
        padded = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  " + "  ".join(padded).rstrip()

    heading, *rest = rows
    return [line(heading), "  " + "  ".join("-" * width for width in widths), *map(line, rest)]


def case_text(measured: Measured, bandwidth: float) -> list[str]:
    """One case: a heading, a table, and a word on memory."""
    unit = measured.unit
    per = f"per {unit}" + (f" (of {measured.units})" if measured.units > 1 else "")
    shows_share = measured.read_bytes is not None and past_cache(measured.read_bytes)
    heading = ["contender", per, "quartiles", "ratio", "quartiles"]
    rows = [heading + (["read", "share"] if shows_share else [])]
    for row in measured.rows:
        ratio = [digits(row.ratio.median), f"{digits(row.ratio.q25)} to {digits(row.ratio.q75)}"]
        if row is measured.rows[0]:
            ratio = ["1", ""]
        cells = [row.contender, time_text(row.seconds.median), time_spread(row.seconds), *ratio]
        share = share_of_bandwidth(measured, row, bandwidth)
        if share is not None and measured.read_bytes is not None:
            rate = measured.read_bytes / row.seconds.median
            cells += [f"{rate / 1e9:.1f} GB/s", f"{100 * share:.0f} %"]
        rows.append(cells)
    lines = [f"{measured.suite}, {measured.name} ({measured.rounds} rounds)", *table(rows)]
    note = [f"  {measured.note}"] if measured.note else []
    return [*lines, *memory_text(measured), *note, ""]


def memory_text(measured: Measured) -> list[str]:
    """Whether memory can matter to a case, where it is large enough to ask."""
    size = measured.read_bytes
    if size is None or size < 2**20:
        return []
    working_set = f"  Working set {size / 1e6:.0f} MB"
    if not past_cache(size):
        return [
            f"{working_set}, mostly held by the last-level cache: no share of memory bandwidth."
        ]
    text = f"{working_set}, past the last-level cache"
    if measured.probe_rate is not None:
        rate = measured.probe_rate.median / 1e9
        text += f"; a plain sum in the same rounds reads {rate:.1f} GB/s"
    return [f"{text}."]


def small_models_text(measured: Sequence[Measured]) -> list[str]:
    """All small models in one table: how many times gdcore's time the others take."""
    rows = [["contender", "least at", "ratio: mean", "least", "greatest"]]
    for one in small_models.summarise(measured):
        numbers = (one.geometric_mean, one.least, one.greatest)
        rows.append([one.contender, one.least_at, *map(digits, numbers)])
    rounds = min(m.rounds for m in measured)
    heading = (
        f"{small_models.SUITE}: {len(measured)} random lines and planes, a fresh model each, "
        f"{rounds} rounds (geometric means)"
    )
    return [heading, *table(rows, left=2), ""]


def slower_rows(measured: Sequence[Measured]) -> list[str]:
    """Where something is faster than gdcore."""
    found = [
        f"  {m.suite}, {m.name}: {row.contender} takes {digits(row.ratio.median)} of gdcore's time"
        for m in measured
        for row in m.rows[1:]
        if row.ratio.median < 1 and not row.contender.startswith("gdcore")
    ]
    return ["Faster than gdcore:", *(found or ["  nothing that was measured"]), ""]


UNITS = {"x": " x", "us": " µs", "%": " %"}


def goals_text(results: Sequence[Result], quick: bool) -> list[str]:
    """The goals whose cases were run, what was measured, and whether they are met."""
    rows = [["goal", "bound", "measured", "met"]]
    for result in results:
        if result.measured is not None:
            goal, unit = result.goal, UNITS[result.goal.unit]
            bound = f"{'<=' if goal.at_most else '>='} {goal.bound:g}{unit}"
            met = "yes" if result.met else "NO"
            rows.append([goal.what, bound, f"{digits(result.measured)}{unit}", met])
    if len(rows) == 1:
        return []
    heading = "Goals (a quick run: an indication only)" if quick else "Goals"
    return [heading, *table(rows), ""]


def machine_text(machine: dict[str, Any], bandwidth: dict[str, Any]) -> list[str]:
    """What the run was measured on."""
    cache = machine["last_level_cache_bytes"]
    known = "of unknown size" if cache is None else f"{cache / 2**20:.0f} MiB"
    sizes = ", ".join(
        f"{size['median'] / 1e9:.1f} GB/s over {size['bytes'] / 2**20:.0f} MiB"
        for size in bandwidth["sizes"]
    )
    busy = machine["load_average"] > BUSY
    return [
        f"{machine['cpu']}, {machine['usable_cores']} cores, last-level cache {known}, "
        f"load {machine['load_average']:.1f} at the start",
        f"torch {machine['torch']} ({machine['torch_instruction_set']}, "
        f"{machine['torch_threads']} threads), NumPy {machine['numpy']}, "
        f"gdcore {machine['gdcore']} ({machine['gdcore_instruction_set']}), {machine['date']}",
        f"read bandwidth, torch.sum of float32: {sizes}",
        *([BUSY_WARNING] if busy else []),
        "",
    ]


def as_json(
    measured: Sequence[Measured],
    results: Sequence[Result],
    machine: dict[str, Any],
    bandwidth: dict[str, Any],
    *,
    quick: bool,
    seconds: float,
) -> dict[str, Any]:
    """Everything that was measured; times in seconds, rates in bytes per second."""
    rate = bandwidth["bytes_per_second"]
    small = [m for m in measured if m.suite == small_models.SUITE]
    return {
        "machine": machine,
        "bandwidth": bandwidth,
        "quick": quick,
        "seconds": seconds,
        "cases": [_case_json(m, rate) for m in measured],
        "small_models": [s._asdict() for s in small_models.summarise(small)] if small else [],
        "goals": [
            {
                "what": result.goal.what,
                "bound": result.goal.bound,
                "at_most": result.goal.at_most,
                "unit": result.goal.unit,
                "measured": result.measured,
                "met": result.met,
            }
            for result in results
        ],
    }


def _case_json(m: Measured, bandwidth: float) -> dict[str, Any]:
    return {
        "suite": m.suite,
        "name": m.name,
        "unit": m.unit,
        "units_per_call": m.units,
        "rounds": m.rounds,
        "read_bytes": m.read_bytes,
        "past_cache": None if m.read_bytes is None else past_cache(m.read_bytes),
        "plain_sum_rate": None if m.probe_rate is None else m.probe_rate._asdict(),
        "rows": [
            {
                "contender": row.contender,
                "seconds": row.seconds._asdict(),
                "ratio": row.ratio._asdict(),
                "calls_per_round": row.calls,
                "share_of_bandwidth": share_of_bandwidth(m, row, bandwidth),
            }
            for row in m.rows
        ],
    }
