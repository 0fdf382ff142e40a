"""Running one lesson: its versions, its lines, and whether they agree."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from .agreement import Disagreement
from .data import read_csv
from .lesson import BACKENDS, Lesson, Run, Settings, Trained
from .measure import train, train_all


class UsageError(ValueError):
    """A request that cannot be met, said in one sentence."""


@dataclass(frozen=True)
class Request:
    """Settings that take the place of a lesson's own; all ``None`` for the seed's program."""

    lr: float | None = None
    epochs: int | None = None
    seed: int | None = None
    data: Path | None = None

    @property
    def given(self) -> list[str]:
        """The options that were given."""
        return [
            name for name in ("lr", "epochs", "seed", "data") if getattr(self, name) is not None
        ]

    def settings(self, lesson: Lesson) -> Settings:
        """A lesson's settings with these in place of its own.

        Raises:
            UsageError: If the lesson cannot take one of them.
            DataError: If the data file cannot be used.
        """
        settings = lesson.settings()
        for name in self.given:
            if name not in lesson.options:
                raise UsageError(f"{lesson.name} takes no --{name}: {_why_not(lesson, name)}")
        if self.data is not None:
            x, y = read_csv(self.data)
            if lesson.features not in (None, x.shape[1]):
                columns = "one x column" if lesson.features == 1 else f"{lesson.features} x columns"
                raise UsageError(
                    f"{lesson.name} takes {columns} and y; {self.data} has {x.shape[1]} and y"
                )
            flat = settings.x.dim() == 1
            x, y = (x[:, 0], y[:, 0]) if flat else (x, y)
            settings = replace(settings, x=x.to(settings.dtype), y=y.to(settings.dtype))
            if not (settings.x.isfinite().all() and settings.y.isfinite().all()):
                dtype = str(settings.dtype).removeprefix("torch.")
                raise UsageError(f"{self.data} has numbers too large for {lesson.name} ({dtype})")
        if self.lr is not None:
            settings = replace(settings, lr=self.lr, named_rates={})
        if self.epochs is not None:
            every = _recorded_every(settings.every, self.epochs)
            settings = replace(settings, epochs=self.epochs, every=every)
        return replace(settings, seed=self.seed)


def _why_not(lesson: Lesson, option: str) -> str:
    return {
        "lr": "it takes no steps",
        "epochs": "it differentiates once",
        "seed": "nothing in it is random",
        "data": "it differentiates an expression, and has no data",
    }[option]


def _recorded_every(own: int, epochs: int) -> int:
    """The seed's interval if it gives a table of a fit length, else one that does."""
    return own if 2 <= epochs // own <= 30 else max(1, epochs // 10)


def _recorded_before_divergence(runs: dict[str, Run]) -> int:
    """An interval that gives a diverging run some rows before its end."""
    ends = [run.diverged for run in runs.values() if run.diverged is not None]
    return max(1, min(ends) // 10) if ends else sys.maxsize


@dataclass(frozen=True)
class Outcome:
    """What one version of a lesson did."""

    run: Run
    lines: list[str]
    disagreement: Disagreement | None

    @property
    def agrees(self) -> bool:
        return self.disagreement is None


@dataclass(frozen=True)
class Report:
    """What the versions of a lesson did on some settings."""

    lesson: Lesson
    settings: Settings
    outcomes: dict[str, Outcome]

    @property
    def shown(self) -> str:
        """The version whose table and picture are shown: the fused one if it ran."""
        return max(self.outcomes, key=BACKENDS.index)

    @property
    def agrees(self) -> bool:
        return all(outcome.agrees for outcome in self.outcomes.values())


def run_lesson(lesson: Lesson, request: Request, backends: Iterable[str]) -> Report:
    """Run versions of a lesson, and compare them.

    On the seed's settings every version is compared with what the seed prints. On others the
    versions are compared with the autograd version, which is run for it if need be (the manual
    one, where autograd is all that was asked for).
    """
    settings = request.settings(lesson)
    versions = {backend: lesson.versions[backend] for backend in backends}
    runs = train_all(versions, settings)
    while (every := _recorded_before_divergence(runs)) < settings.every:
        settings = replace(settings, every=every)
        runs = train_all(versions, settings)
    lines = {backend: lesson.lines(run, settings) for backend, run in runs.items()}
    if request.given:
        found = _against_each_other(lesson, settings, runs)
    else:
        found = {
            backend: lesson.check(backend, run, lines[backend]) for backend, run in runs.items()
        }
    outcomes = {backend: Outcome(runs[backend], lines[backend], found[backend]) for backend in runs}
    return Report(lesson, settings, outcomes)


def _against_each_other(
    lesson: Lesson, settings: Settings, runs: dict[str, Run]
) -> dict[str, Disagreement | None]:
    def trained(backend: str) -> Trained:
        version = lesson.versions[backend]
        run = runs[backend] if backend in runs else train(version, settings)
        return Trained(backend, version, run)

    reference = trained("autograd")
    others = [backend for backend in runs if backend != "autograd"]
    compared = {
        backend: lesson.compare(settings, reference, trained(backend))
        for backend in others or ["manual"]
    }
    found = {backend: compared[backend] for backend in others}
    if "autograd" in runs:
        # Autograd is right by one version that agrees with it, and wrong if none does.
        disagreements = list(compared.values())
        found["autograd"] = None if None in disagreements else disagreements[0]
    return found
