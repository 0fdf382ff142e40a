"""What a lesson is: settings go in, a version trains, a run comes out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import Tensor

from .agreement import Disagreement
from .sayings import Saying

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BACKENDS = ("manual", "autograd", "fused")

Value: TypeAlias = float | list[float]
Given: TypeAlias = Tensor | float | list[float]


@dataclass(frozen=True)
class Settings:
    """What a version trains on.

    Args:
        x: The inputs, (n, d) or (n,); the parameters take its dtype.
        y: The targets, (n, 1) or (n,).
        lr: The learning rate.
        epochs: The number of passes over the data.
        every: A row is recorded every so many epochs.
        seed: Start from random numbers of this seed; ``None`` for the lesson's own start.
        named_rates: The rates of a lesson that trains at several, which then are its series.
    """

    x: Tensor
    y: Tensor
    lr: float
    epochs: int
    every: int = 1
    seed: int | None = None
    named_rates: Mapping[str, float] = field(default_factory=dict)

    @property
    def rates(self) -> Mapping[str, float]:
        """Every rate to train at, by the name of its series."""
        return self.named_rates or {f"{self.lr:g}": self.lr}

    @property
    def dtype(self) -> torch.dtype:
        return self.x.dtype

    def to(self, dtype: torch.dtype) -> Settings:
        """The same settings with the data in another dtype."""
        return replace(self, x=self.x.to(dtype), y=self.y.to(dtype))

    def start(self, *shapes: tuple[int, ...]) -> list[Tensor]:
        """Parameters to start from: zeros, or random numbers when a seed was asked for.

        They are drawn in float32 whatever the dtype, so that a float64 run starts from the same
        place, and from a generator of their own, so that every version draws the same.
        """
        if self.seed is None:
            return [torch.zeros(shape, dtype=self.dtype) for shape in shapes]
        generator = torch.Generator().manual_seed(self.seed)
        return [torch.randn(shape, generator=generator).to(self.dtype) for shape in shapes]


@dataclass(frozen=True)
class Row:
    """The numbers that a version recorded at one step, in a named series if it has several."""

    step: int
    values: Mapping[str, Value]
    series: str = ""

    @property
    def cost(self) -> float:
        return number(self.values["cost"])


def plain(value: Given) -> Value:
    """A tensor as a number (one element) or as a flat list of numbers."""
    if not isinstance(value, Tensor):
        return value if isinstance(value, list) else float(value)
    return float(value.item()) if value.numel() == 1 else list(value.flatten().tolist())


def number(value: Value) -> float:
    """A recorded value that is one number."""
    if isinstance(value, list):
        raise TypeError(f"expected one number, got a list of {len(value)}")
    return value


def numbers(value: Value) -> list[float]:
    """A recorded value as a list of its numbers."""
    return value if isinstance(value, list) else [value]


def all_finite(values: Mapping[str, Value]) -> bool:
    return all(math.isfinite(one) for value in values.values() for one in numbers(value))


class Run:
    """One training of one version; its clock starts when it is made and stops at `finish`."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.final: dict[str, Value] = {}
        self.costs: Tensor | None = None  # of every epoch, where a version has them
        self.diverged: int | None = None  # the first step that was seen to be no longer finite
        self.largest_stable_lr: float | None = None
        self.seconds = 0.0
        self._ended: set[str] = set()
        self._started = time.perf_counter()

    def record(self, step: int, series: str = "", **values: Given) -> None:
        """Keep the numbers of one step; a series ends where they stop being finite."""
        row = Row(step, {name: plain(value) for name, value in values.items()}, series)
        if not all_finite(row.values):
            self._ended.add(series)
            self.diverged = step if self.diverged is None else self.diverged
        if series not in self._ended:
            self.rows.append(row)

    def finish(self, **final: Given) -> Run:
        """Keep the numbers that the training ends with, and stop the clock."""
        self.final = {name: plain(value) for name, value in final.items()}
        self.seconds = time.perf_counter() - self._started
        return self

    def series(self, name: str) -> list[Row]:
        return [row for row in self.rows if row.series == name]


Version: TypeAlias = Callable[[Settings], Run]
Lines: TypeAlias = Callable[[Run, Settings], list[str]]
Check: TypeAlias = Callable[[str, Run, list[str]], Disagreement | None]
Says: TypeAlias = Callable[[Run, Settings], list[Saying]]


class Trained(NamedTuple):
    """A version and what it did with the settings at hand."""

    backend: str
    version: Version
    run: Run


Compare: TypeAlias = Callable[[Settings, Trained, Trained], Disagreement | None]


@dataclass(frozen=True)
class Lesson:
    """A program of the seeds, in each of the versions that make sense for it.

    Args:
        name: Its name, as in the golden data.
        title: One line, for the list of lessons.
        teaches: Two or three sentences.
        versions: By backend: ``manual``, ``autograd``, ``fused``.
        settings: The seed's own settings.
        lines: What is printed of a run.
        check: Compares a backend's run and lines with the golden data.
        compare: Compares two versions with each other, on any settings.
        draw: The lesson's picture.
        says: What the curvature of its cost says of a run.
        closing: What is printed under the table beside the seed's own lines.
        options: Which of ``lr``, ``epochs``, ``seed`` and ``data`` it takes.
        features: How many x columns its data has; ``None`` for any number.
        has_table: The seed prints (step, loss) pairs rather than formatted lines.
    """

    name: str
    title: str
    teaches: str
    versions: Mapping[str, Version]
    settings: Callable[[], Settings]
    lines: Lines
    check: Check
    compare: Compare
    draw: Callable[[Run, Settings], Figure]
    says: Says
    closing: Says = lambda run, settings: []
    options: frozenset[str] = frozenset({"lr", "epochs", "seed", "data"})
    features: int | None = 1
    has_table: bool = False


class Shown(float):
    """A number in a table, which a diverging run must not tear apart."""

    def __format__(self, spec: str) -> str:
        return super().__format__(".6g" if abs(self) >= 1e9 else spec)


def line_per_row(template: str) -> Lines:
    """Lines from one format string, which may use `step`, `last` and a row's own names."""

    def lines(run: Run, settings: Settings) -> list[str]:
        last = settings.epochs - 1
        return [
            template.format(
                step=row.step,
                last=last,
                **{name: Shown(number(value)) for name, value in row.values.items()},
            )
            for row in run.rows
        ]

    return lines
