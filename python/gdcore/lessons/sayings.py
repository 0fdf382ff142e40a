"""Sentences with computed numbers in them, apart from the words of a language."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

THIN = "\u202f"  # a narrow space, at which no line breaks
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Saying:
    """A sentence's name, and the numbers in it; a language has its words."""

    name: str
    numbers: dict[str, str]


def shown(value: float, digits: int = 4) -> str:
    """A number as a reader writes it: 0.2404, −0.4, 44 010, 3.6 × 10⁻⁶, 10⁻⁶."""
    text = f"{value:.{digits}g}"
    mantissa, _, exponent = text.partition("e")
    if exponent and 0 < int(exponent) < 8:
        text = f"{round(float(text)):,}".replace(",", THIN)
    elif exponent:
        power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
        text = power if mantissa == "1" else f"{mantissa}{THIN}×{THIN}{power}"
    return text.replace("-", "−")


def say(name: str, **values: float | int | str) -> Saying:
    """A saying whose numbers are rounded to four digits; whole ones and words stay as they are."""
    texts = {
        key: f"{value:,}".replace(",", THIN) if isinstance(value, int) else value
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
            size = shown(abs(value), 2)
            text += joint + (name if size == "1" else f"{size} {name}")
    return text


def epochs(found: float) -> int | str:
    """A count as `Curvature.epochs_to` gives it."""
    return "∞" if math.isinf(found) else int(found)


def six(value: float) -> str:
    """A rate where divergence begins, with the digits that tell it from its neighbours."""
    return shown(value, 6)
