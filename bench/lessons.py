"""Three lessons of the seeds, from start to end: fused, as the seeds write them, and by hand.

Data, rates and starts are the lessons' own; only training is timed, with the making of the model
and the optimizer, and without printing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import lesson_legendre
import lesson_line
import lesson_sine
from loops import EAGER
from timing import Planned

SUITE = "lessons"
EPOCHS = 2000
LESSONS = {
    "linear_regression": lesson_line.case,
    "sine_torch": lesson_sine.case,
    "legendre": lesson_legendre.case,
}


def cases(quick: bool) -> Iterator[Planned]:
    """A quick run leaves out foreach and fused; in fewer epochs, setting up would weigh more."""
    loops = {"eager": EAGER["eager"]} if quick else EAGER
    for name, case in LESSONS.items():
        yield Planned(SUITE, name, functools.partial(case, EPOCHS, loops))
