"""Curvatures and directions of a least-squares problem, and its residual along them.

With Φ = U S Vᵀ the loss is scale · (Σⱼ eⱼ² + rest), where e = S Vᵀ Θ - Uᵀ y is the residual along
the left singular vectors; its curvature along the j-th right one is λⱼ = 2 · scale · Sⱼ². Φ itself
is factorised, never ΦᵀΦ, whose condition is the square.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._native.triangle import threads_for
from .design import Reduced

__all__ = ["MOST_EXACT", "Spectrum", "exact_spectrum"]

MOST_EXACT = 4096
"""Features (or rows, if these are fewer) up to which all singular values are computed."""


@dataclass(frozen=True)
class Spectrum:
    """The problem in the coordinates where it falls apart into one-dimensional ones."""

    singular: Tensor
    """(m,), the largest first."""
    directions: Tensor
    """(m, q): row j is the direction in Θ's rows; (m, q k) of all Θ where that has been needed."""
    residual: Tensor
    """(m, c): e at ``start``."""
    start: Tensor
    """(q, k): Θ."""
    rest: float
    """What no parameter can take away, before scaling."""
    scale: float
    tolerance: float
    """Singular values up to this are rounding of zero."""
    exact: bool
    target: Tensor | None = None
    """(m, c): Uᵀ y where all is exact; unlike e it does not depend on ``start``."""
    complete: bool = True
    """Whether no descent from ``start`` ever leaves these directions."""
    settled: tuple[bool, bool] = (True, True)
    """Whether the largest and the smallest are those of Φ."""

    @property
    def curvatures(self) -> Tensor:
        """(m,): eigenvalues of the loss's Hessian, the largest first."""
        return 2 * self.scale * self.singular.square()

    @property
    def rank(self) -> int:
        """How many singular values rounding of the largest does not hide."""
        return int((self.singular > self.tolerance).sum())

    @property
    def coordinates(self) -> Tensor:
        """(m, c): Θ along the directions."""
        start = self.start if self.directions.shape[1] == len(self.start) else self._flat
        return self.directions @ start

    @property
    def _flat(self) -> Tensor:
        return self.start.reshape(-1, 1)

    def away(self, displacement: Tensor) -> Tensor:
        """Θ after a displacement (m, c) along the directions."""
        return self.start + (self.directions.T @ displacement).reshape(self.start.shape)


def exact_spectrum(reduced: Reduced, start: Tensor) -> Spectrum:
    """All singular values of the reduced rows, which are those of all rows."""
    with threads_for(reduced.rows):
        u, singular, directions = torch.linalg.svd(reduced.rows, full_matrices=False)
    largest = float(singular[0]) if len(singular) else 0.0
    return Spectrum(
        singular,
        directions,
        u.T @ (reduced.rows @ start - reduced.target),
        start,
        reduced.rest,
        reduced.scale,
        reduced.noise * largest,
        True,
        u.T @ reduced.target,
    )
