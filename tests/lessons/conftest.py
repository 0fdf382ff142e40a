"""One run of every lesson, which the tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gdcore import __main__
from gdcore.lessons import LESSONS, golden, measure
from gdcore.lessons.running import Report, Request, run_lesson


class Said(NamedTuple):
    """What a command did: its exit status and what it printed."""

    status: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture(autouse=True, scope="session")
def _one_round() -> Iterator[None]:
    """Times do not matter here, so every version runs once, after a short warm-up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "ROUNDS", 1)
        patch.setattr(measure, "WARM_UP_EPOCHS", 1)
        yield


@pytest.fixture(scope="session")
def reports(_one_round: None) -> dict[str, Report]:
    """Every lesson with every version, on the seed's settings."""
    return {
        name: run_lesson(lesson, Request(), lesson.versions) for name, lesson in LESSONS.items()
    }


@pytest.fixture
def lessons(capsys: pytest.CaptureFixture[str]) -> Command:
    """``python -m gdcore lessons ...`` in this process."""

    def run(*arguments: str | Path) -> Said:
        try:
            status = __main__.main(["lessons", *map(str, arguments)])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        return Said(status, *capsys.readouterr())

    return run


@pytest.fixture
def change_golden(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    """Put another golden entry in the place of a lesson's."""

    def change(name: str, entry: Any) -> None:
        entries = {**golden.all_golden(), name: entry}
        monkeypatch.setattr(golden, "all_golden", lambda: entries)

    return change
