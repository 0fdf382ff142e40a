"""What a run of the lessons prints, and its JSON."""

from __future__ import annotations

import math
import textwrap
from typing import Any

from .._insight.figures import rate_figure
from .language import language
from .lesson import Run, Value
from .running import Outcome, Report

WIDTH = 96
MOST_LINES = 30


def lesson_text(report: Report) -> str:
    """What a lesson teaches, and its table."""
    lesson, outcome = report.lesson, report.outcomes[report.shown]
    run = outcome.run
    teaches = textwrap.wrap(lesson.teaches, WIDTH - 2)
    parts = [lesson.name, *(f"  {line}" for line in teaches), ""]
    parts += [f"    {line}" for line in shortened(outcome.lines)]
    if run.rows:
        parts += [f"    {line}" for line in _closing(report, run)]
    parts += [f"    {line}" for line in _divergence(report, run)]
    for backend, other in report.outcomes.items():
        parts += disagreement_text(report, backend, other)
    if said := curvature_text(report):
        parts += ["", *(f"  {line}" for line in textwrap.wrap(said, WIDTH - 2))]
    return "\n".join([*parts, ""])


def _closing(report: Report, run: Run) -> list[str]:
    return [language("en").say(one) for one in report.lesson.closing(run, report.settings)]


def curvature_text(report: Report) -> str:
    """What the curvature says of the version that is shown, as one paragraph."""
    sayings = report.lesson.says(report.outcomes[report.shown].run, report.settings)
    return " ".join(language("en").say(saying) for saying in sayings)


def shortened(lines: list[str]) -> list[str]:
    if len(lines) <= MOST_LINES:
        return lines
    half = MOST_LINES // 2
    return [*lines[:half], f"... {len(lines) - 2 * half} more lines ...", *lines[-half:]]


def _divergence(report: Report, run: Run) -> list[str]:
    if run.diverged is None:
        return []
    if "lr" not in report.lesson.options or run.diverged == 0:
        dtype = str(report.settings.dtype).removeprefix("torch.")
        return [f"The cost is not finite from the start: the numbers are too large for {dtype}."]
    said = f"At lr {report.settings.lr:g} this run diverges: by step {run.diverged} the cost is not"
    limit = run.largest_stable_lr
    above = "" if limit is None else f" The largest stable rate is {rate_figure(limit)}."
    before = "" if run.costs is None else ", ".join(f"{cost:.4g}" for cost in run.costs[-4:])
    return [
        f"{said} finite.{above} Try a smaller --lr.",
        *([f"The last costs before: {before}"] if before else []),
    ]


def disagreement_text(report: Report, backend: str, outcome: Outcome) -> list[str]:
    """The place where a version differs, with both readings."""
    found = outcome.disagreement
    if found is None:
        return []
    return [
        f"  DISAGREES: {report.lesson.name}, {backend}, {found.where}",
        f"    expected: {found.expected}",
        f"    got:      {found.got}",
    ]


def summary(reports: list[Report], with_seed: bool) -> str:
    """One table of all lessons: versions, agreement, times, speed-up."""
    agrees = "agrees with seed" if with_seed else "versions agree"
    header = ["lesson", "versions", agrees, "manual", "autograd", "fused", "speed-up"]
    rows = [header, *(_summary_row(report) for report in reports)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = []
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        lines.append("  ".join([*left, *right]).rstrip())
    return "\n".join(lines)


def _summary_row(report: Report) -> list[str]:
    seconds = {backend: outcome.run.seconds for backend, outcome in report.outcomes.items()}
    times = [time_text(seconds.get(backend)) for backend in ("manual", "autograd", "fused")]
    agrees = "yes" if report.agrees else "NO"
    return [report.lesson.name, ", ".join(report.outcomes), agrees, *times, speed_up(report)]


def time_text(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s " if seconds >= 1.0 else f"{seconds * 1e3:.3g} ms"


def speed_up(report: Report) -> str:
    """Autograd's time over that of the fused version, which must have done the same work."""
    runs = [
        report.outcomes[backend].run
        for backend in ("autograd", "fused")
        if backend in report.outcomes
    ]
    if any(run.diverged is not None for run in runs):
        return "diverges"  # gdcore.fit stops there, and the loops go on
    if len(runs) < 2 or runs[1].seconds <= 0.0:
        return "-"
    ratio = runs[0].seconds / runs[1].seconds
    return f"{ratio:.0f} x" if ratio >= 9.95 else f"{ratio:.1f} x"


def as_json(reports: list[Report]) -> dict[str, dict[str, Any]]:
    """By lesson and backend: its lines or table, final numbers, seconds, and agreement."""
    return {
        report.lesson.name: {
            backend: _entry(report, outcome) for backend, outcome in report.outcomes.items()
        }
        for report in reports
    }


def _entry(report: Report, outcome: Outcome) -> dict[str, Any]:
    run = outcome.run
    entry: dict[str, Any] = {}
    if report.lesson.has_table:
        entry["table"] = [[row.step, row.cost] for row in run.rows]
    else:
        entry["lines"] = outcome.lines
    entry["final"] = {name: _finite(value) for name, value in run.final.items()}
    entry["seconds"] = run.seconds
    entry["agrees"] = outcome.agrees
    if closing := _closing(report, run) if run.rows else []:
        entry["closing"] = closing
    if run.diverged is not None:
        entry["diverged_at"] = run.diverged
    return entry


def _finite(value: Value) -> Any:
    """JSON has no infinities: they become null."""
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return value if math.isfinite(value) else None
