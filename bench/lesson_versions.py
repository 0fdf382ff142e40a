"""A lesson's own versions, as `python -m gdcore lessons` runs them: fused, by autograd, by hand.

They record what the lesson prints, which the other cases of the suite leave out.
"""

from __future__ import annotations

import functools
from typing import Any

from agreement import DisagreementError
from case import Case, Contender
from gdcore.lessons import LESSONS
from gdcore.lessons.lesson import Version
from gdcore.lessons.measure import train
from gdcore.lessons.running import Request, run_lesson
from loops import BY_HAND

CONTENDERS = {
    "fused": "gdcore, fused",
    "autograd": "the seed's loop",
    "manual": BY_HAND,
}


def names() -> list[str]:
    """The lessons that have a fused version and another to compare it with."""
    return [
        name
        for name, lesson in LESSONS.items()
        if "fused" in lesson.versions and len(lesson.versions) > 1
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

    def run(version: Version) -> Any:
        return train(version, report.settings)

    contenders = [
        Contender(words, functools.partial(run, lesson.versions[backend]))
        for backend, words in CONTENDERS.items()
        if backend in lesson.versions
    ]
    return Case(contenders, checks=(), unit="run")
