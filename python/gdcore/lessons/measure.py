"""Running the versions of a lesson, and timing them fairly."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from gdcore import DivergenceError

from .lesson import Run, Settings, Version, all_finite

WARM_UP_EPOCHS = 10
ROUNDS = 7
SECONDS_PER_VERSION = 0.3


def train(version: Version, settings: Settings) -> Run:
    """Run a version; a run that diverges ends with its last finite row.

    `gdcore.fit` says at which epoch the cost stopped being finite; the run is then repeated up
    to there. The loops by hand and by autograd go on with infinities, as their seeds would, and
    record that they did.
    """
    with np.errstate(over="ignore", invalid="ignore"), warnings.catch_warnings():
        # Its table shows what too high a rate does; the warning would only say it beforehand.
        warnings.filterwarnings("ignore", "optimizer: lr=", RuntimeWarning)
        try:
            run = version(settings)
            if run.diverged is None and not all_finite(run.final):
                run.diverged = settings.epochs
        except DivergenceError as error:
            finite = replace(settings, epochs=error.epoch)
            run = version(finite) if error.epoch > 0 else Run().finish()
            run.diverged = error.epoch
            run.largest_stable_lr = error.largest_stable_lr
        return run


def train_all(versions: Mapping[str, Version], settings: Settings) -> dict[str, Run]:
    """Run every version and give each its median time over several rounds.

    A few epochs of each version go first, untimed, so that none of them pays for first calls.
    The rounds take the versions in turn, so that a busy moment of the machine falls on all of
    them alike; a version that takes long has fewer rounds.
    """
    warm_up = replace(settings, epochs=min(settings.epochs, WARM_UP_EPOCHS))
    for version in versions.values():
        train(version, warm_up)
    runs: dict[str, Run] = {}
    seconds: dict[str, list[float]] = {backend: [] for backend in versions}
    for _ in range(ROUNDS):
        for backend, version in versions.items():
            if sum(seconds[backend]) < SECONDS_PER_VERSION:
                runs[backend] = train(version, settings)
                seconds[backend].append(runs[backend].seconds)
    for backend, run in runs.items():
        run.seconds = statistics.median(seconds[backend])
    return runs
