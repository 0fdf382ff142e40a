"""A run as data: every sample, so that a later run can be compared with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from goals import Result
from limits import Rate
from table import Table
from timing import Measured, Row, Spread

FORMAT = 2


def as_json(
    measured: Sequence[Measured],
    tables: Sequence[Table],
    results: Sequence[Result],
    machine: dict[str, Any],
    rates: Sequence[Rate],
    *,
    quick: bool,
    seconds: float,
) -> dict[str, Any]:
    """Times in seconds per unit, rates in bytes or multiply-adds per second."""
    return {
        "format": FORMAT,
        "machine": machine,
        "limits": {
            limit.name: {
                "unit": limit.unit,
                "samples": list(samples),
                **Spread.of(samples)._asdict(),
            }
            for limit, samples in rates
        },
        "quick": quick,
        "seconds": seconds,
        "cases": [as_case(m) for m in measured],
        "tables": [
            {"suite": t.suite, "figures": dict(t.figures), "samples": dict(t.samples)}
            for t in tables
        ],
        "goals": [
            {
                "what": result.goal.what,
                "bound": result.goal.bound,
                "at_most": result.goal.at_most,
                "unit": result.goal.unit,
                "measured": result.measured,
                "met": result.met,
                "missing": result.missing,
            }
            for result in results
        ],
    }


def as_case(m: Measured) -> dict[str, Any]:
    return {
        "suite": m.suite,
        "name": m.name,
        "unit": m.unit,
        "units_per_call": m.units,
        "rounds": m.rounds,
        "rows": [_row(row) for row in m.rows],
        "missing": dict(m.missing),
        "limit": None
        if m.bound is None
        else {
            "name": m.bound.name,
            "unit": m.bound.unit,
            "samples": list(m.bound.samples),
            "share": m.bound.share._asdict(),
        },
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "contender": row.contender,
        "samples": list(row.samples),
        "seconds": row.seconds._asdict(),
        "ratio": row.ratio._asdict(),
        "calls_per_sample": row.calls,
        "compile_seconds": row.compile_seconds,
    }


def write(found: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
