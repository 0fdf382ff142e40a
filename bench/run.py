"""gdcore's bench: ``python bench/run.py``; see README.md beside it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import accuracy
import compare
import compare_page
import compression
import goals
import insight
import lessons
import limits
import linear_mse
import loss_steps
import machine
import memory
import minibatches
import neighbour
import old_run
import optim
import page
import pictures
import recognised
import record
import small_models
import stepwise
import threads
from agreement import DisagreementError
from case import Planned
from table import Table
from timing import FULL, QUICK, Effort, Measured, measure

SUITES: dict[str, Callable[[bool], Iterator[Planned]]] = {
    lessons.SUITE: lessons.cases,
    stepwise.SUITE: stepwise.cases,
    linear_mse.SUITE: linear_mse.cases,
    loss_steps.SUITE: loss_steps.cases,
    minibatches.SUITE: minibatches.cases,
    recognised.SUITE: recognised.cases,
    compression.SUITE: compression.cases,
    insight.SUITE: insight.cases,
    optim.SUITE: optim.cases,
    threads.SUITE: threads.cases,
    small_models.SUITE: small_models.cases,
    recognised.CHOICE: recognised.choices,
}
TABLES: dict[str, Callable[[bool], Table]] = {
    accuracy.SUITE: accuracy.table,
    memory.SUITE: memory.table,
    neighbour.SUITE: neighbour.table,
}
SUMMARISED = (small_models.SUITE, recognised.CHOICE)
GOALS = "goals"
# Seconds until a case has its least rounds only, which go on for a while; a part of the suites
# takes a part of them.
FULL_SECONDS, QUICK_SECONDS = 195.0, 45.0
FOLDER = Path(__file__).parents[1] / "build" / "bench"


@dataclass
class Run:
    """What a run has found so far."""

    measured: list[Measured] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run.py",
        description="Time gdcore against everything that could be used instead of it.",
    )
    parser.add_argument(
        "--suite",
        action="append",
        choices=[*SUITES, *TABLES, GOALS],
        help="run this suite only; may be repeated; goals: what the goals need (default: all)",
    )
    parser.add_argument("--case", default="", metavar="TEXT", help="only cases whose name has TEXT")
    parser.add_argument("--quick", action="store_true", help="a rough answer within a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE too")
    parser.add_argument(
        "--compare", type=Path, metavar="OLD.json", help="tell what moved; status 1 on a regression"
    )
    parser.add_argument(
        "--out", type=Path, default=FOLDER, metavar="FOLDER", help=f"page and pictures: {FOLDER}"
    )
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    parsed = parser.parse_args(given)
    if parsed.json is not None and not parsed.json.absolute().parent.is_dir():
        parser.error(f"--json: no directory {parsed.json.absolute().parent}")
    if parsed.json is not None and parsed.json.is_dir():
        parser.error(f"--json: expected a file, got the directory {parsed.json}")
    if parsed.out.exists() and not parsed.out.is_dir():
        parser.error(f"--out: expected a directory, got the file {parsed.out}")
    if parsed.compare is not None and not parsed.compare.is_file():
        parser.error(f"--compare: no file {parsed.compare}")
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


def plan_tables(suites: Sequence[str] | None, text: str, quick: bool) -> list[str]:
    """The suites that are not made of cases; memory, in processes of its own, takes no part in a
    quick run unless it is asked for."""
    chosen = suites or [suite for suite in TABLES if not (quick and suite == memory.SUITE)]
    return [suite for suite in TABLES if not text and (suite in chosen or GOALS in chosen)]


def show(lines: Sequence[str], kept: list[str]) -> None:
    kept += lines
    print("\n".join(lines), flush=True)


def measure_all(
    planned: Sequence[Planned], suites: Sequence[str], quick: bool, seconds: float, kept: list[str]
) -> Run:
    """Measure everything, each suite shown when it is done.

    Args:
        seconds: Shared out among the cases by their weights, after the tables have been made.
    """
    run, end = Run(), time.perf_counter() + seconds
    effort = QUICK if quick else FULL
    for suite in suites:
        run.tables.append(TABLES[suite](quick))
        show(page.table_text(run.tables[-1]), kept)
    left = sum(one.weight for one in planned)
    for suite in dict.fromkeys(one.suite for one in planned):
        cases = [one for one in planned if one.suite == suite]
        for one in cases:
            run.measured.append(measure(one, for_part(effort, one, left, end)))
            left -= one.weight
        show(suite_text(run, suite), kept)
    return run


def for_part(effort: Effort, one: Planned, left: float, end: float) -> Effort:
    """A case's part of the time that is left."""
    seconds = max(0.0, end - time.perf_counter()) * one.weight / left
    return replace(effort, case_seconds=min(effort.case_seconds, seconds))


def suite_text(run: Run, suite: str) -> list[str]:
    measured = [m for m in run.measured if m.suite == suite]
    return page.suite_text(suite, measured, summarised=suite in SUMMARISED)


def main(given: Sequence[str] | None = None) -> int:
    """Run the bench; the exit status is 1 where contenders disagree, which stops it, or where
    gdcore has become slower than in the run that it is compared with."""
    options = arguments(given)
    planned = plan(options.suite, options.case, options.quick)
    suites = plan_tables(options.suite, options.case, options.quick)
    if not planned and not suites:
        print("no case has that in its name; --list shows them all", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join([*(f"{one.suite}: {one.name}" for one in planned), *suites]))
        return 0
    started, kept = time.perf_counter(), list[str]()
    described, quick = machine.describe(), options.quick
    old = None
    if options.compare is not None:
        try:
            old = old_run.read(options.compare, format=record.FORMAT, quick=quick)
        except ValueError as error:
            print(f"--compare: {error}", file=sys.stderr)
            return 2
    rates = limits.measure_machine(QUICK if quick else FULL)
    show(page.machine_text(described, rates, quick), kept)
    seconds = QUICK_SECONDS if quick else FULL_SECONDS
    try:
        run = measure_all(planned, suites, quick, seconds, kept)
    except DisagreementError as error:
        print(f"Stopped before timing: {error}", file=sys.stderr)
        return 1
    results = goals.results(run.measured, run.tables)
    show([*page.lost_text(run.measured), *page.goals_text(results, quick)], kept)
    seconds = time.perf_counter() - started
    found = record.as_json(
        run.measured,
        run.tables,
        results,
        described,
        rates,
        quick=quick,
        seconds=seconds,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    for file in (options.out / "results.json", options.json):
        if file is not None:
            record.write(found, file)
    regressed = False
    if old is not None:
        again = measured_again(old, found, planned, quick)
        show(compare_page.text(old, found, again), kept)
        regressed = bool(compare.regressions(old, found, again))
    drawn = pictures.save(run.measured, options.out)
    pictured = ", pictures" if drawn else ""
    show([f"{len(run.measured)} cases in {seconds:.0f} s; page{pictured}: {options.out}"], kept)
    kept += ["", *(f"![{picture.stem}]({picture.name})" for picture in drawn)]
    (options.out / "page.md").write_text("\n".join(kept) + "\n")
    return 1 if regressed else 0


def measured_again(
    old: dict[str, Any], found: dict[str, Any], planned: Sequence[Planned], quick: bool
) -> dict[str, Any] | None:
    """The run with those cases measured again that seem to have lost; None where none has."""
    suspected = compare.suspects(old, found)
    again = [one for one in planned if (one.suite, one.name) in suspected]
    if not again:
        return None
    print(f"Measuring {len(again)} cases again that seem to have lost …", flush=True)
    effort = QUICK if quick else FULL
    cases = {(one.suite, one.name): record.as_case(measure(one, effort)) for one in again}
    return {**found, "cases": [cases.get((c["suite"], c["name"]), c) for c in found["cases"]]}


if __name__ == "__main__":
    sys.exit(main())
