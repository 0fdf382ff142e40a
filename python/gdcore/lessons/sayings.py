"""Sentences with computed numbers in them, apart from the words of a language."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Saying:
    """A sentence's name, and the numbers in it; a language has its words."""

    name: str
    numbers: dict[str, str]


def shown(value: float, digits: int = 4) -> str:
    """A number as a reader writes it: 0.2404, −0.4, 6.86 × 10⁶."""
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        text = f"{mantissa} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return text.replace("-", "−")


def say(name: str, **values: float | int | str) -> Saying:
    """A saying whose numbers are rounded to four digits; whole ones and words stay as they are."""
    texts = {
        key: f"{value:,}".replace(",", " ") if isinstance(value, int) else value
        for key, value in values.items()
        if not isinstance(value, float)
    }
    rounded = {key: shown(value) for key, value in values.items() if isinstance(value, float)}
    return Saying(name, texts | rounded)


def direction(names: Sequence[str], vector: Tensor) -> str:
    """A combination of parameters, the largest first: 0.92 b − 0.4 W."""
    parts = sorted(zip(vector.tolist(), names, strict=True), key=lambda part: -abs(part[0]))
    sign = math.copysign(1.0, parts[0][0])
    text = ""
    for value, name in parts:
        if abs(value) >= 0.005:
            joint = (" + " if text else "") if value * sign > 0 else (" − " if text else "−")
            text += f"{joint}{shown(abs(value), 2)} {name}"
    return text


def epochs(found: int | None) -> int | str:
    return "∞" if found is None else found


def six(value: float) -> str:
    """A rate where divergence begins, with the digits that tell it from its neighbours."""
    return shown(value, 6)
