"""Rates and momenta as figures that still train when they are copied from a page."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

__all__ = ["momentum_figure", "rate_figure", "rate_figures"]

_MOST_DIGITS = 15
"""Decimal digits that every float64 keeps."""

_ROUNDING = 2.0**-50
"""Which the curvatures themselves carry: a rate of 0.49999999999999994 is 0.5."""


def rate_figure(rate: float, digits: int = 4) -> str:
    """A rate rounded down: rounded up, the largest stable one would diverge."""
    if math.isinf(rate) or rate == 0:
        return "∞" if rate else "0"
    exact = Decimal(rate * (1 + _ROUNDING))
    last = Decimal(1).scaleb(exact.adjusted() - digits + 1)
    return f"{float(exact.quantize(last, ROUND_FLOOR)):.{digits}g}"


def rate_figures(*rates: float) -> list[str]:
    """Several rates, with as many digits as tell those apart that differ."""
    different = len(set(rates))
    for digits in range(4, _MOST_DIGITS + 1):
        figures = [rate_figure(rate, digits) for rate in rates]
        if len(set(figures)) == different:
            break
    return figures


def momentum_figure(momentum: float, lacking: float) -> str:
    """A momentum rounded up, since the largest stable rate falls with it.

    Args:
        momentum: below 1.
        lacking: 1 - momentum, of which three digits are kept.
    """
    if momentum == 0:
        return "0"
    decimals = max(2 - math.floor(math.log10(lacking)), 3 - math.floor(math.log10(momentum)))
    last = Decimal(1).scaleb(-min(decimals, _MOST_DIGITS))
    return f"{Decimal(momentum).quantize(last, ROUND_CEILING).normalize():f}"
