"""The lessons of the seeds, from start to end: fused, as the seeds write them, and by hand.

Three of them against every contender: data, rates and starts are the lessons' own, and only
training is timed, with the making of the model and the optimizer, and without recording what the
lesson prints. Then each lesson's own versions, which do record it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import lesson_legendre
import lesson_line
import lesson_sine
import lesson_versions
from case import Planned
from loops import EAGER

SUITE = "lessons"
EPOCHS = 2000
LESSONS = {
    "linear_regression": lesson_line.case,
    "sine_torch": lesson_sine.case,
    "legendre": lesson_legendre.case,
}


def cases(quick: bool) -> Iterator[Planned]:
    """A quick run leaves out foreach, fused and the lessons' own versions."""
    loops = {"eager": EAGER["eager"]} if quick else EAGER
    for name, case in LESSONS.items():
        yield Planned(SUITE, name, functools.partial(case, EPOCHS, loops))
    for name in () if quick else lesson_versions.names():
        build = functools.partial(lesson_versions.case, name)
        yield Planned(SUITE, f"{name}, the lesson's versions", build, weight=0.2)
