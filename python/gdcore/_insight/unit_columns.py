"""Rank, optimum and flattest direction where the columns of Φ differ by many digits.

Φ = B D, where the columns of B have length 1. Rounding of a column is relative to that column, so
that B shows what is lost beside Φ's largest singular value: features of 1 and of 1e-12 are as
independent as their directions are.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from .._native.triangle import threads_for
from .design import Reduced

__all__ = ["TOLD", "UnitColumns"]

TOLD = 1e-4
"""Of its length, a step may be off along combinations that vanish, and its end be the nearest."""

_ALIKE = 1e3
"""Times which the columns' lengths may differ before B tells more than Φ itself."""


class UnitColumns:
    """The singular values of B.

    Args:
        reduced: the problem.
        most: columns up to which those combinations of them that vanish are written out.
    """

    def __init__(self, reduced: Reduced, most: int) -> None:
        rows, self.columns = reduced.rows, reduced.rows.shape[1]
        sizes = torch.linalg.vector_norm(rows, dim=0)
        self.used = torch.nonzero(sizes > 0).flatten()
        self.sizes = sizes[self.used, None]
        unit = rows[:, self.used] / self.sizes.T
        self.whole = len(self.used) <= most
        with threads_for(unit):
            self.u, singular, self.v = torch.linalg.svd(unit, full_matrices=self.whole)
        self.rank = int((singular > reduced.noise * singular[:1]).sum())
        self.singular = singular[: self.rank]
        # By what rounding turns the combinations that vanish towards those that do not.
        self.turned = reduced.noise * float(singular[0] / self.singular[-1]) if self.rank else 0.0

    @property
    def nearest(self) -> bool:
        """Whether the combinations of columns that vanish are told from those that do not."""
        return self.rank == len(self.used) or (self.whole and self.turned < TOLD)

    @staticmethod
    def differ(reduced: Reduced) -> bool:
        sizes = torch.linalg.vector_norm(reduced.rows, dim=0)
        used = sizes[sizes > 0]
        return len(used) > 0 and bool(used.max() > _ALIKE * used.min())

    @cached_property
    def inverse(self) -> Tensor:
        """(columns, rank): Φ⁺ = inverse · uᵀ."""
        return self._shortest(self.v[: self.rank].T / self.singular / self.sizes)

    def _shortest(self, steps: Tensor) -> Tensor:
        """(columns, …): steps of the columns used, without what Φ maps to zero."""
        if self.nearest:
            _remove(steps, _sparse(self.v[self.rank :].T, self.turned) / self.sizes)
        found = torch.zeros(self.columns, steps.shape[1], dtype=torch.float64, device="cpu")
        found[self.used] = steps
        return found

    def step(self, residual: Tensor) -> Tensor:
        """The shortest step (columns, k) that leaves as little as can be of Φ Θ - y, (rows, k)."""
        step = -self.inverse @ (self.u[:, : self.rank].T @ residual)
        # Once more: the product rounds what it adds, which may be large beside its sum.
        return self._shortest(step[self.used])

    def lost(self, target: Tensor) -> float:
        """Σ of squares of what no Θ reaches of a target (rows, k)."""
        return float((self.u[:, self.rank :].T @ target).square().sum())

    @cached_property
    def flattest(self) -> tuple[float, Tensor]:
        """The smallest singular value of Φ that is not zero, and its direction (columns,)."""
        with threads_for(self.inverse):
            directions, sizes, _ = torch.linalg.svd(self.inverse, full_matrices=False)
        return 1 / float(sizes[0]), directions[:, 0]


def _sparse(vanishing: Tensor, rounding: float) -> Tensor:
    """The combinations, each of one column by those that are independent: of two columns that are
    the same, [1, -1, 0, …]. The zeros are exact, and stay so beside columns of 1e-12, along which a
    step is 1e12.
    """
    count = vanishing.shape[1]
    order, lower, _ = torch.linalg.lu(vanishing)
    each = torch.linalg.solve_triangular(
        lower[:count], lower, upper=False, left=False, unitriangular=True
    )
    found: Tensor = order @ each.where(each.abs() > rounding, 0.0)
    return found


def _remove(values: Tensor, span: Tensor) -> None:
    """Make columns orthogonal to a span, in place: Gram and Schmidt's way, modified, whose rounding
    stays where the span is not zero. The span is used up.
    """
    for j in range(span.shape[1]):
        column = span[:, j] / torch.linalg.vector_norm(span[:, j])
        for others in (span[:, j + 1 :], values):
            others.addr_(column, column @ others, alpha=-1)
