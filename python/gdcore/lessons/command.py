"""The `lessons` command: which lessons to run, on what, and what to write."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib.util
import io
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .data import DataError
from .language import FILES
from .lesson import BACKENDS, Lesson
from .registry import LESSONS
from .report import as_json, lesson_text, summary
from .running import Report, Request, UsageError, run_lesson

_STDOUT = Path("-")
REPORT_NEEDS = ("matplotlib", "jinja2", "latex2mathml", "pygments")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="lessons to run; all if none")
    parser.add_argument("--list", action="store_true", help="list the lessons and stop")
    parser.add_argument("--backend", choices=[*BACKENDS, "all"], default="all")
    parser.add_argument("--lr", type=_rate, help="another learning rate")
    parser.add_argument("--epochs", type=_whole(1), help="another number of epochs")
    parser.add_argument("--seed", type=_whole(0), help="start from random numbers of this seed")
    parser.add_argument("--data", type=Path, metavar="FILE.csv", help="other data: columns x..., y")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw each lesson there")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="write the lessons there as one HTML page"
    )
    parser.add_argument("--language", choices=list(FILES), help="of that page; en if not given")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the results there; - for standard output, with nothing else on it",
    )


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return value


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) < 2**63:
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {least} to 2^63 - 1, got {text!r}"
            )
        return int(text)

    return parse


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        0 if everything agrees, 1 if anything disagrees, 2 for a request that cannot be met.
    """
    if arguments.list:
        width = max(map(len, LESSONS))
        print("\n".join(f"{name:{width}}  {lesson.title}" for name, lesson in LESSONS.items()))
        return 0
    to_stdout = arguments.json == _STDOUT
    try:
        with contextlib.redirect_stdout(io.StringIO() if to_stdout else sys.stdout):
            reports, status = _run(arguments)
    except (UsageError, DataError) as error:
        print(f"gdcore lessons: {error}", file=sys.stderr)
        return 2
    if arguments.json is not None:
        text = json.dumps(as_json(reports), ensure_ascii=False, allow_nan=False, indent=1) + "\n"
        if to_stdout:
            sys.stdout.write(text)
        else:
            arguments.json.write_text(text, encoding="utf-8")
    return status


def _run(arguments: argparse.Namespace) -> tuple[list[Report], int]:
    request = Request(arguments.lr, arguments.epochs, arguments.seed, arguments.data)
    chosen, left_out = _choose(arguments.names, arguments.backend, request)
    if arguments.language is not None and arguments.report is None:
        raise UsageError("--language is that of --report DIR, which was not given")
    _check_directory("--plot", arguments.plot, ["matplotlib"], "plot")
    _check_directory("--report", arguments.report, REPORT_NEEDS, "report")
    _check_json(arguments.json)
    reports: list[Report] = []
    for lesson, backends in chosen:
        reports.append(run_lesson(lesson, request, backends))
        print(lesson_text(reports[-1]), flush=True)
        if arguments.plot is not None:
            _draw(reports[-1], arguments.plot)
    print(summary(reports, with_seed=not request.given))
    if arguments.report is not None:
        from . import page

        code = arguments.language or "en"
        written = page.write(reports, arguments.report, code, with_seed=not request.given)
        print(f"\nReport: {written}")
    if left_out:
        print("\nNot run:\n" + "\n".join(f"  {reason}" for reason in left_out))
    return reports, 0 if all(report.agrees for report in reports) else 1


def _choose(
    names: list[str], backend: str, request: Request
) -> tuple[list[tuple[Lesson, list[str]]], list[str]]:
    """The lessons and versions to run, and why the others are not.

    A lesson that was named must be able to do what was asked; of the rest, those that can.
    """
    chosen, left_out = [], []
    for lesson in [_find(name) for name in dict.fromkeys(names)] or LESSONS.values():
        try:
            backends = list(lesson.versions) if backend == "all" else [backend]
            if backend not in (*lesson.versions, "all"):
                versions = " and ".join(lesson.versions)
                raise UsageError(f"{lesson.name} has no {backend} version; it has {versions}")
            request.settings(lesson)
            chosen.append((lesson, backends))
        except UsageError as reason:
            if names:
                raise
            left_out.append(str(reason))
    if not chosen:
        raise UsageError("no lesson can do that: " + "; ".join(left_out))
    return chosen, left_out


def _find(name: str) -> Lesson:
    if name in LESSONS:
        return LESSONS[name]
    nearest = difflib.get_close_matches(name, LESSONS, n=1, cutoff=0.0)[0]
    raise UsageError(f"there is no lesson {name!r}; the nearest name is {nearest!r} (see --list)")


def _check_directory(option: str, directory: Path | None, needs: Sequence[str], extra: str) -> None:
    """Find out before the lessons run, not after, that something cannot be written."""
    if directory is None:
        return
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{option} needs {', '.join(missing)}: pip install -c constraints.txt 'gdcore[{extra}]'"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {directory}: {error.strerror}") from None


def _check_json(file: Path | None) -> None:
    if file is not None and file != _STDOUT:
        try:
            file.touch()
        except OSError as error:
            raise UsageError(f"--json {file}: {error.strerror}") from None


def _draw(report: Report, directory: Path) -> None:
    with np.errstate(over="ignore"):  # an axis may end at the largest number there is
        figure = report.lesson.draw(report.outcomes[report.shown].run, report.settings)
        figure.savefig(directory / f"{report.lesson.name}.png")
