"""A lesson's own versions, as `python -m gdcore lessons` runs them: fused, by autograd, by hand.

They record what the lesson prints, which the other cases of the suite leave out. Loops are timed
for their first 100 epochs and counted for all.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from agreement import DisagreementError
from case import Case, Contender
from gdcore.lessons import LESSONS
from gdcore.lessons.lesson import Settings, Version
from gdcore.lessons.measure import train
from gdcore.lessons.running import Request, run_lesson
from loops import BY_HAND, FEW

CONTENDERS = {
    "fused": "gdcore, fused",
    "autograd": "the seed's loop",
    "manual": BY_HAND,
}

# Its loops take eight seconds to come to the seed's table.
LONG = "sine_rmsprop"


def names() -> list[str]:
    """The lessons that have a fused version and another to compare it with."""
    return [
        name
        for name, lesson in LESSONS.items()
        if "fused" in lesson.versions and len(lesson.versions) > 1 and name != LONG
    ]


def case(name: str) -> Case:
    """Every version must come to the seed's own table before it is timed.

    Raises:
        DisagreementError: One does not.
    """
    lesson = LESSONS[name]
    report = run_lesson(lesson, Request(), lesson.versions)
    for backend, outcome in report.outcomes.items():
        if outcome.disagreement is not None:
            raise DisagreementError(f"{CONTENDERS[backend]}: {outcome.disagreement}")

    whole = report.settings
    few = replace(whole, epochs=min(FEW, whole.epochs))

    def run(version: Version, settings: Settings) -> Any:
        return train(version, settings)

    contenders = []
    for backend, words in CONTENDERS.items():
        if backend in lesson.versions:
            settings = whole if backend == "fused" else few
            timed = functools.partial(run, lesson.versions[backend], settings)
            contenders.append(Contender(words, timed, units=settings.epochs / whole.epochs))
    return Case(contenders, checks=(), unit="run")
