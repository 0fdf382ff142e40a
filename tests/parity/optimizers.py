"""How far each optimizer is from exact arithmetic, for every dtype, size and option.

Ten steps with nonzero gradients; the largest distance of a parameter from the same steps, from the
same start, in long double (which float64 needs; for the others float64 gives the same figures). In
units in the last place of the dtype; and as a number that passes near zero has tiny ones, in those
of the largest that it has been, or its largest step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import gdcore

from ..optimizer_bounds import steps_of

Exact = NDArray[np.longdouble]

STEPS = 10
LR = 0.05
DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
SIZES = {"1": 1, "7 (less than a vector)": 7, "32 (whole vectors)": 32, "33 (and one more)": 33,
         "1 000": 1000}  # fmt: skip
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {},
        {"weight_decay": 0.1},
        {"maximize": True},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.5},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ],
    "RMSprop": [
        {},
        {"weight_decay": 0.1},
        {"maximize": True},
        {"momentum": 0.9},
        {"centered": True},
        {"momentum": 0.9, "centered": True, "weight_decay": 0.1},
    ],
    "Adam": [{}, {"weight_decay": 0.1}, {"maximize": True}, {"amsgrad": True}],
    "AdamW": [{}, {"weight_decay": 0.1}, {"maximize": True}, {"amsgrad": True}],
}
OURS = "gdcore"
TORCH: dict[str, dict[str, Any]] = {
    "torch": {},
    "`foreach`": {"foreach": True},
    "`fused`": {"fused": True},
}
CONTENDERS = (OURS, *TORCH)


@dataclass(frozen=True)
class Cell:
    optimizer: str
    dtype: str
    size: str
    option: int
    contender: str

    @property
    def options(self) -> dict[str, Any]:
        # Away from eps, whose rounding to the dtype is not what is measured.
        eps = {} if self.optimizer == "SGD" else {"eps": 2.0**-10}
        return {"lr": LR, **eps, **OPTIONS[self.optimizer][self.option]}


def name_of(options: dict[str, Any]) -> str:
    parts = (key if value is True else f"{key} {value}" for key, value in options.items())
    return ", ".join(parts) or "plain"


def cells(contenders: tuple[str, ...] = CONTENDERS) -> Iterator[Cell]:
    for optimizer, options in OPTIONS.items():
        for dtype in DTYPES:
            for option in range(len(options)):
                for size in SIZES:
                    for contender in contenders:
                        yield Cell(optimizer, dtype, size, option, contender)


def start_and_gradients(cell: Cell) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(SIZES[cell.size])
    n, dtype = SIZES[cell.size], DTYPES[cell.dtype]

    def away_from_zero() -> Tensor:
        sign = torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1.0
        size = torch.rand(n, generator=generator, dtype=torch.float64) + 0.5
        return (sign * size).to(dtype)

    start = away_from_zero()
    return start, [away_from_zero() for _ in range(STEPS)]


def exact_steps(cell: Cell, start: Tensor, grads: list[Tensor]) -> list[Exact]:
    """The parameter after each step."""
    steps = steps_of(cell.optimizer, start.double(), [g.double() for g in grads], **cell.options)
    return [states["parameter"].value for states in steps]


def last_place(size: Exact, dtype: torch.dtype) -> Exact:
    """The distance between numbers of the dtype, at each of these sizes."""
    info = torch.finfo(dtype)
    exponent = np.floor(np.log2(np.maximum(size, np.longdouble(info.tiny))))
    return np.exp2(exponent) * np.longdouble(info.eps)


def in_long_double(tensor: Tensor) -> Exact:
    return tensor.detach().double().numpy().astype(np.longdouble)


def error(cell: Cell) -> float | None:
    """The largest over ten steps; None where torch has no such optimizer."""
    if cell.contender == "`fused`" and cell.optimizer == "RMSprop":
        return None
    start, grads = start_and_gradients(cell)
    parameter = torch.nn.Parameter(start.clone())
    library = gdcore.optim if cell.contender == OURS else torch.optim
    choice = TORCH.get(cell.contender, {})
    optimizer = getattr(library, cell.optimizer)([parameter], **cell.options, **choice)
    before = in_long_double(start)
    worst, size = 0.0, np.abs(before)
    for grad, exact in zip(grads, exact_steps(cell, start, grads), strict=True):
        parameter.grad = grad.clone()
        optimizer.step()
        size = np.maximum(size, np.maximum(np.abs(exact), np.abs(exact - before)))
        before = exact
        distance = np.abs(in_long_double(parameter) - exact) / last_place(size, start.dtype)
        worst = max(worst, float(np.nan_to_num(distance, nan=math.inf).max()))
    return worst


def measured(contenders: tuple[str, ...] = CONTENDERS) -> dict[Cell, float | None]:
    return {cell: error(cell) for cell in cells(contenders)}
