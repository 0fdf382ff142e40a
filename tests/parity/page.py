"""The page made of the measured errors, and gdcore's figures read back from it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from .optimizers import CONTENDERS, DTYPES, OPTIONS, OURS, SIZES, Cell, measured, name_of

PAGE = Path(__file__).parents[2] / "docs" / "parity.md"
WRONG = 32.0
"""Units that rounding does not come to, and that leaving out the steps does, in every dtype."""

INTRODUCTION = """# Parity of the optimizers

How far gdcore's optimizers and PyTorch's are from exact arithmetic: the largest error of a
parameter over ten steps with nonzero gradients, in units in the last place of its dtype. Rounding
alone makes a few units: the parameter is rounded ten times, and its states are. **Bold** is more
than rounding explains. "torch" is PyTorch's default, `foreach=False` on the CPU.

What has no figure is in `tests/api/test_optim_*.py`, each against PyTorch's own: state dicts in
both directions mid-run, through files that load with `weights_only=True`; copies and pickles; every
learning-rate scheduler; hooks and profiler ranges; `GradScaler`; `torch.compile`; sparse, complex
and missing gradients; and PyTorch's own lists of options and of errors (`optim_db`).

`python -m tests.parity` writes this page. The tests hold gdcore's figures to it: they are the same
on every machine. PyTorch's vary with the processor and the version; these are of PyTorch {torch} on
{machine} ({capability}).
"""

Figures = dict[Cell, float | None]


def figure(error: float | None) -> str:
    if error is None:
        return "–"
    return f"**{error:.0f}**" if error >= WRONG else f"{error:.1f}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _head(columns: list[str]) -> list[str]:
    return [_row(columns), _row(["---"] * len(columns))]


def _worst(figures: Figures, optimizer: str, dtype: str, contender: str) -> float | None:
    found = [
        error
        for cell, error in figures.items()
        if (cell.optimizer, cell.dtype, cell.contender) == (optimizer, dtype, contender)
    ]
    return max((error for error in found if error is not None), default=None)


def _summary(figures: Figures) -> Iterator[str]:
    yield from ("", "## The largest of each", "")
    yield from _head(["optimizer", "dtype", *CONTENDERS])
    for optimizer in OPTIONS:
        for dtype in DTYPES:
            worst = [figure(_worst(figures, optimizer, dtype, c)) for c in CONTENDERS]
            yield _row([optimizer, dtype, *worst])
    yield from ("", *_wrong(figures))


def _wrong(figures: Figures) -> Iterator[str]:
    for contender in CONTENDERS:
        wrong = [
            cell
            for cell, error in figures.items()
            if cell.contender == contender and error is not None and error >= WRONG
        ]
        count = sum(c.contender == contender and e is not None for c, e in figures.items())
        where = sorted({f"{cell.optimizer} in {cell.dtype}" for cell in wrong})
        yield f"- {contender}: {len(wrong)} of {count} wrong" + (
            f" ({', '.join(where)})." if wrong else "."
        )


def _details(figures: Figures) -> Iterator[str]:
    for optimizer, options in OPTIONS.items():
        for dtype in DTYPES:
            yield from ("", f"## {optimizer}, {dtype}", "")
            yield from _head(["options", "elements", *CONTENDERS])
            for index, option in enumerate(options):
                for size in SIZES:
                    errors = [figures[Cell(optimizer, dtype, size, index, c)] for c in CONTENDERS]
                    yield _row([name_of(option), size, *map(figure, errors)])


def text() -> str:
    figures = measured()
    introduction = INTRODUCTION.format(
        torch=torch.__version__.split("+")[0],
        machine=platform.machine(),
        capability=torch.backends.cpu.get_cpu_capability(),
    )
    return "\n".join([introduction.rstrip(), *_summary(figures), *_details(figures), ""])


def figures_on(page: str) -> dict[Cell, str]:
    """gdcore's figures in the page's detailed tables."""
    found = {}
    optimizer = dtype = ""
    for line in page.splitlines():
        if line.startswith("## "):
            optimizer, _, dtype = line[3:].partition(", ")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if optimizer in OPTIONS and len(cells) == 2 + len(CONTENDERS) and cells[1] in SIZES:
            index = [name_of(option) for option in OPTIONS[optimizer]].index(cells[0])
            found[Cell(optimizer, dtype, cells[1], index, OURS)] = cells[2]
    return found
