"""The tables that the seeds print, with the data and settings behind them."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

import torch

from .agreement import Disagreement, compare_lines, compare_table, compare_within
from .lesson import Check, Run, Settings, numbers


@functools.cache
def all_golden() -> dict[str, Any]:
    """Every golden entry, by lesson."""
    text = resources.files(__package__).joinpath("golden.json").read_text(encoding="utf-8")
    entries: dict[str, Any] = json.loads(text)
    return entries


def golden(name: str) -> dict[str, Any]:
    """The golden entry of a lesson."""
    entry: dict[str, Any] = all_golden()[name]
    return entry


def golden_settings(name: str, *, every: int = 1) -> Settings:
    """The data, rate and epochs that a seed's program trains with."""
    entry = golden(name)
    return Settings(
        x=torch.tensor(entry["x"], dtype=torch.float32),
        y=torch.tensor(entry["y"], dtype=torch.float32),
        lr=entry["lr"],
        epochs=entry["epochs"],
        every=every,
    )


def check_lines(name: str) -> Check:
    """The printed lines of a seed."""

    def check(backend: str, run: Run, lines: list[str]) -> Disagreement | None:
        return compare_lines(backend, golden(name)["lines"], lines)

    return check


def check_table(name: str) -> Check:
    """The (step, loss) pairs of a seed, and its last coefficients where it has them.

    The tolerance is relative to each loss, and to the largest of the coefficients.
    """

    def check(backend: str, run: Run, lines: list[str]) -> Disagreement | None:
        entry = golden(name)
        relative = entry["table_relative_tolerance"]
        expected = [(step, loss) for step, loss in entry["table"]]
        found = compare_table(expected, [(row.step, row.cost) for row in run.rows], relative)
        if found or "final_coefficients" not in entry:
            return found
        coefficients = numbers(run.final["coefficients"])
        final = entry["final_coefficients"]
        tolerance = relative * max(map(abs, final))
        return compare_within("final coefficient", final, coefficients, tolerance)

    return check
