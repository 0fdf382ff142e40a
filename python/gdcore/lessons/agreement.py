"""Comparing what a version gives with what it should give; every comparison can fail."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import torch

NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]\d+)?")

# The golden numbers that no seed prints were recorded in full, all 17 digits, from PyTorch's AVX2
# kernels. Other instruction sets round the same float32 sums in another order. One rounding of a
# residual, u (sum |w x| + |y|) = 6e-8 * 400 where y is about 200, changes a cost of 0.2 by
# 2 * 2.4e-5 / sqrt(0.2) = 1.1e-4 of itself: that much is granted there, and nothing here.
RECORDED_ON = "AVX2"
OTHER_ARITHMETIC = 1.1e-4


@dataclass(frozen=True)
class Disagreement:
    """The first place where two results differ, in words."""

    where: str
    expected: str
    got: str


def same_lines(expected: Sequence[str], got: Sequence[str]) -> Disagreement | None:
    """Equal to the character."""
    for index, (want, have) in enumerate(itertools.zip_longest(expected, got), start=1):
        if want != have:
            return Disagreement(f"line {index}", want or "(no line)", have or "(no line)")
    return None


def close_lines(expected: Sequence[str], got: Sequence[str]) -> Disagreement | None:
    """Equal but for ±1 in the last printed digit of each number that has decimals."""
    for index, (want, have) in enumerate(itertools.zip_longest(expected, got), start=1):
        if want is None or have is None or not _close(want, have):
            return Disagreement(f"line {index}", want or "(no line)", have or "(no line)")
    return None


def _close(want: str, have: str) -> bool:
    # Numbers are right-aligned in some tables, so runs of spaces count as one.
    def skeleton(line: str) -> list[str]:
        return [" ".join(text.split()) for text in NUMBER.split(line)]

    if skeleton(want) != skeleton(have):
        return False
    for text_want, text_have in zip(NUMBER.findall(want), NUMBER.findall(have), strict=True):
        off = abs(Decimal(text_want) - Decimal(text_have))
        if _decimals(text_want) != _decimals(text_have):
            return False
        if off > max(_last_digit(text_want), _last_digit(text_have)):
            return False
    return True


def _decimals(text: str) -> int:
    return len(text.partition("e")[0].partition(".")[2])


def _last_digit(text: str) -> Decimal:
    exponent = int(text.partition("e")[2] or 0)
    return Decimal(1).scaleb(exponent - _decimals(text))


def compare_lines(backend: str, expected: Sequence[str], got: Sequence[str]) -> Disagreement | None:
    """Manual and autograd versions to the character, fused ones to ±1 in the last digit."""
    return close_lines(expected, got) if backend == "fused" else same_lines(expected, got)


def compare_digits(
    where: str, expected: Sequence[float], got: Sequence[float]
) -> Disagreement | None:
    """Equal to the digits that are given, which are those of the longest number."""
    decimals = max((len(repr(value).partition(".")[2]) for value in expected), default=0)
    elsewhere = torch.backends.cpu.get_cpu_capability() != RECORDED_ON
    for index, (want, have) in enumerate(itertools.zip_longest(expected, got), start=1):
        if want is None or have is None:
            return Disagreement(f"{where} {index}", str(want), str(have))
        same = f"{want:.{decimals}f}" == f"{have:.{decimals}f}"
        granted = max(OTHER_ARITHMETIC * abs(want), 10.0**-decimals) if elsewhere else 0.0
        if not same and not abs(want - have) <= granted:
            return Disagreement(f"{where} {index}", repr(want), repr(have))
    return None


def compare_within(
    where: str, expected: Sequence[float], got: Sequence[float], tolerance: float
) -> Disagreement | None:
    """Within an absolute tolerance of each other."""
    for index, (want, have) in enumerate(itertools.zip_longest(expected, got), start=1):
        if want is None or have is None or not abs(want - have) <= tolerance:
            return Disagreement(
                f"{where} {index} (tolerance {tolerance:.2g})", repr(want), repr(have)
            )
    return None


def compare_table(
    expected: Sequence[tuple[int, float]], got: Sequence[tuple[int, float]], relative: float
) -> Disagreement | None:
    """The same steps, and losses within a relative tolerance."""
    for index, (want, have) in enumerate(itertools.zip_longest(expected, got), start=1):
        if (
            want is None
            or have is None
            or want[0] != have[0]
            or not abs(want[1] - have[1]) <= relative * abs(want[1])
        ):
            return Disagreement(
                f"row {index} (relative tolerance {relative:g})", _row(want), _row(have)
            )
    return None


def _row(row: tuple[int, float] | None) -> str:
    return "(no row)" if row is None else f"{row[0]} {row[1]}"
