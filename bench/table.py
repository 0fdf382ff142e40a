"""Tables that read well as text and as Markdown, and numbers as they are printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def time_text(seconds: float) -> str:
    """In the largest unit of which there is at least one."""
    unit = next((unit for unit, size in SECONDS.items() if seconds >= size), "ns")
    return f"{digits(seconds / SECONDS[unit])} {unit}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A heading and rows; the first column is text, the others are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(cells: Iterable[str]) -> str:
        padded = [
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rules = [
        f"{'-' * (width - 1)}:" if index else "-" * width for index, width in enumerate(widths)
    ]
    heading, *rest = rows
    return [line(heading), line(rules), *map(line, rest)]


@dataclass(frozen=True)
class Table:
    """What a suite measured that does not time contenders in turns.

    Args:
        suite: The suite.
        heading: What it shows.
        rows: Cells, the heading's first.
        notes: To be read with it.
        figures: What goals ask for, by name.
        samples: All that was measured.
    """

    suite: str
    heading: str
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    samples: Mapping[str, Any] = field(default_factory=dict)
