"""A run of before, read for a comparison, or why it cannot be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["read"]


def read(file: Path, *, format: int, quick: bool) -> dict[str, Any]:
    """What `record.write` has written.

    Raises:
        ValueError: It is something else, or was measured otherwise.
    """
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:  # not a text, or not JSON
        raise ValueError(f"{file}: expected a file that --json has written, {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected what --json writes, got a {type(found).__name__}")
    for key, value in (("format", format), ("quick", quick)):
        if found.get(key) != value:
            raise ValueError(f"{key}: expected {value!r} as in this run, got {found.get(key)!r}")
    try:
        well_formed = all(map(_is_case, found["cases"]))
    except (KeyError, TypeError):
        well_formed = False
    if not well_formed:
        raise ValueError(f"cases: expected rows with samples of every round, got others in {file}")
    return found


def _is_case(case: Mapping[str, Any]) -> bool:
    rows = case["rows"]
    names = [case["suite"], case["name"], *(row["contender"] for row in rows)]
    return (
        all(isinstance(name, str) for name in names)
        and len({len(row["samples"]) for row in rows}) == 1
        and all(seconds > 0 for row in rows for seconds in row["samples"])
    )
