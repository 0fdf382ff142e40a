"""gdcore's bench: ``python bench/run.py [--suite NAME] [--json FILE]``; see README.md beside it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import goals
import lessons
import linear_mse
import loss_steps
import machine
import memory
import optim
import report
import small_models
from agreement import DisagreementError
from timing import FULL, QUICK, Effort, Measured, Planned, measure

SUITES: dict[str, Callable[[bool], Iterator[Planned]]] = {
    lessons.SUITE: lessons.cases,
    linear_mse.SUITE: linear_mse.cases,
    loss_steps.SUITE: loss_steps.cases,
    optim.SUITE: optim.cases,
    small_models.SUITE: small_models.cases,
}
GOALS = "goals"


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run.py",
        description="Time gdcore against eager PyTorch, code by hand and NumPy.",
    )
    parser.add_argument(
        "--suite",
        action="append",
        choices=[*SUITES, GOALS],
        help="run this suite only; may be repeated; goals: what the goals need (default: all)",
    )
    parser.add_argument("--case", default="", metavar="TEXT", help="only cases whose name has TEXT")
    parser.add_argument("--quick", action="store_true", help="a rough answer within a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    parsed = parser.parse_args(given)
    if parsed.json is not None and not parsed.json.absolute().parent.is_dir():
        parser.error(f"--json: no directory {parsed.json.absolute().parent}")
    return parsed


def plan(suites: Sequence[str] | None, text: str, quick: bool) -> list[Planned]:
    """The cases of the suites whose name has the text in it."""
    chosen = suites or list(SUITES)
    return [
        planned
        for suite, cases in SUITES.items()
        for planned in cases(quick)
        if text in planned.name
        and (suite in chosen or (GOALS in chosen and goals.wanted(suite, planned.name)))
    ]


def show(lines: Sequence[str]) -> None:
    print("\n".join(lines), flush=True)


def measure_all(planned: Sequence[Planned], effort: Effort, bandwidth: float) -> list[Measured]:
    """Measure one case after the other, showing each; the small models together at their end."""
    found = []
    for one in planned:
        found.append(measure(one, effort))
        if one.suite != small_models.SUITE:
            show(report.case_text(found[-1], bandwidth))
    small = [m for m in found if m.suite == small_models.SUITE]
    if small:
        show(report.small_models_text(small))
    return found


def main(given: Sequence[str] | None = None) -> int:
    """Run the bench; the exit status is 1 where contenders disagree, which stops it."""
    options = arguments(given)
    planned = plan(options.suite, options.case, options.quick)
    if options.list:
        show([f"{one.suite}: {one.name}" for one in planned])
        return 0
    if not planned:
        print("no case has that in its name; --list shows them all", file=sys.stderr)
        return 2
    started = time.perf_counter()
    described = machine.describe()
    bandwidth = memory.read_bandwidth(options.quick)
    rate = bandwidth["bytes_per_second"]
    show(report.machine_text(described, bandwidth))
    try:
        measured = measure_all(planned, QUICK if options.quick else FULL, rate)
    except DisagreementError as error:
        print(f"Stopped before timing: {error}", file=sys.stderr)
        return 1
    results = goals.results(measured, rate)
    show(report.slower_rows(measured))
    goals_reached = report.goals_text(results, options.quick)
    if goals_reached:
        show(goals_reached)
    seconds = time.perf_counter() - started
    show([f"{len(measured)} cases in {seconds:.0f} s"])
    if options.json is not None:
        found = report.as_json(
            measured, results, described, bandwidth, quick=options.quick, seconds=seconds
        )
        options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
