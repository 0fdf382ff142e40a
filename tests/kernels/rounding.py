"""How far a kernel may be from the exact result, counted from its roundings.

The standard model of arithmetic: each operation's result is off by at most u times itself, with
u = 2⁻²⁴ in float32 and 2⁻⁵³ in float64, so a term that is rounded m times on its way to the result
is off by at most γₘ = m u / (1 - m u) of its size. A fused multiply-add rounds once; charging its
product too keeps the bound right for any order and any instruction set.

Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, 2.2, 3.1 and 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}

# Products that a kernel sums in the data's own dtype before it adds them to a double: 64 rows, or
# 32 rows of at most 7 outputs (kRowGroup, kRun and kManyOutputs of csrc/kernels/kernels.h).
RUN_OF_ROWS = 64
RUN_OF_RESIDUALS = 32 * 7
# A double sum combines lanes (4 additions), and is divided or multiplied by a factor (3 roundings).
AFTER_A_SUM = 8


def gamma(roundings: int, unit: float) -> float:
    return roundings * unit / (1 - roundings * unit)


@dataclass(frozen=True)
class Bounded:
    """Exact values, and how far from each of them the same formula in a dtype may end.

    The values are long doubles: 11 bits more than a double, so that what they round themselves is
    less than a thousandth of any bound; `check` adds that thousandth.
    """

    value: NDArray[np.longdouble]
    error: NDArray[np.float64]
    unit: float

    @property
    def largest(self) -> NDArray[np.float64]:
        return np.abs(self.value).astype(np.float64) + self.error

    @property
    def T(self) -> Bounded:  # noqa: N802
        return Bounded(self.value.T, self.error.T, self.unit)

    def reshape(self, *shape: int) -> Bounded:
        return Bounded(self.value.reshape(shape), self.error.reshape(shape), self.unit)

    def __getitem__(self, index: int) -> Bounded:
        return Bounded(self.value[index], self.error[index], self.unit)

    def __neg__(self) -> Bounded:
        return Bounded(-self.value, self.error, self.unit)

    def __add__(self, other: Bounded) -> Bounded:
        return self._rounded(self.value + other.value, self.error + other.error)

    def __sub__(self, other: Bounded) -> Bounded:
        return self + -other

    def __mul__(self, other: Bounded | float) -> Bounded:
        if isinstance(other, float):  # exact in the dtype
            other = Bounded(np.array(other, np.longdouble), np.zeros(()), self.unit)
        error = self.error * other.largest + np.abs(self.value).astype(np.float64) * other.error
        return self._rounded(self.value * other.value, error)

    def __truediv__(self, other: Bounded) -> Bounded:
        smallest = np.abs(other.value).astype(np.float64) - other.error
        assert np.all(smallest > 0), "a divisor that may be zero"
        quotient = self.value / other.value
        size = np.abs(quotient).astype(np.float64)
        return self._rounded(quotient, (self.error + size * other.error) / smallest)

    def sqrt(self) -> Bounded:
        least = np.maximum(self.value.astype(np.float64) - self.error, 0)
        root = np.sqrt(self.value)
        return self._rounded(root, self.error / (root.astype(np.float64) + np.sqrt(least)))

    def maximum(self, other: Bounded) -> Bounded:
        """Exact: it rounds nothing."""
        error = np.maximum(self.error, other.error)
        return Bounded(np.maximum(self.value, other.value), error, self.unit)

    def in_unit(self, unit: float) -> Bounded:
        """Converted to a dtype."""
        return Bounded(self.value, self.error, unit)._rounded(self.value, self.error)

    def _rounded(self, value: NDArray[np.longdouble], error: NDArray[np.float64]) -> Bounded:
        size = np.abs(value).astype(np.float64) + error
        return Bounded(value, error + self.unit * size, self.unit)

    def matmul(self, other: Bounded, relative: float) -> Bounded:
        """Inner products whose terms are each off by ``relative`` in the end."""
        mine = np.abs(self.value).astype(np.float64)
        error = self.error @ other.largest + mine @ other.error
        error = error + relative * (self.largest @ other.largest)
        return Bounded(self.value @ other.value, error, self.unit)

    def dot(self, other: Bounded, roundings: int | None = None) -> Bounded:
        """An inner product in the dtype, summed in any order."""
        return self.matmul(other, gamma(roundings or self.value.shape[-1], self.unit))

    def over_rows(self, other: Bounded, run: int = RUN_OF_ROWS) -> Bounded:
        """Σ over rows of products: runs of at most ``run`` in the dtype, the rest in double."""
        return self.T.matmul(other, self._of_a_sum(run))

    def total(self) -> Bounded:
        """Σ over rows."""
        error = self.error.sum(0) + self._of_a_sum(RUN_OF_ROWS) * self.largest.sum(0)
        return Bounded(self.value.sum(0), error, self.unit)

    def _of_a_sum(self, run: int) -> float:
        rows = self.value.shape[0]
        return gamma(min(rows, run) + 1, self.unit) + gamma(rows + AFTER_A_SUM, 2.0**-53)

    def result(self, factor: int, divisor: int) -> Bounded:
        """Times factor / divisor, in double arithmetic that is counted already, then rounded."""
        exact = np.longdouble(factor) / np.longdouble(divisor)
        return self._rounded(self.value * exact, self.error * float(exact))


def bounded(tensor: Tensor) -> Bounded:
    """A tensor's values, which are exact."""
    values = tensor.detach().double().cpu().numpy().astype(np.longdouble)
    return Bounded(values, np.zeros(values.shape), UNIT[tensor.dtype])


def check(actual: Tensor, expected: Bounded, what: str) -> None:
    """Fail unless every element of ``actual`` is as close as its bound says."""
    assert UNIT[actual.dtype] == expected.unit, what
    assert tuple(actual.shape) == expected.value.shape, what
    assert np.all(expected.value != 0), f"{what}: a zero would hide a wrong factor"
    values = actual.detach().double().cpu().numpy().astype(np.longdouble)
    distance = np.abs(values - expected.value).astype(np.float64)
    allowed = expected.error * (1 + 1e-3)
    within = distance <= allowed
    assert within.all(), (
        f"{what}: {np.count_nonzero(~within)} of {within.size} elements are off, at worst by "
        f"{np.max(distance / np.maximum(allowed, 1e-300)):.3g} times what rounding allows"
    )
