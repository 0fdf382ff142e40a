"""Curvatures and directions of a least-squares problem, and its residual along them.

With Φ = U S Vᵀ the loss is scale · (Σⱼ eⱼ² + rest), where e = S Vᵀ Θ - Uᵀ y is the residual along
the left singular vectors; its curvature along the j-th right one is λⱼ = 2 · scale · Sⱼ². Φ itself
is factorised, never ΦᵀΦ, whose condition is the square.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._native.factor import threads_for
from .design import Design, Reduced

__all__ = ["MOST_EXACT", "Spectrum", "exact_spectrum", "krylov_spectrum"]

MOST_EXACT = 4096
"""Features (or rows, if these are fewer) up to which all singular values are computed."""

_STEPS = 300
"""Of Golub and Kahan's bidiagonalisation; the largest values have long settled."""


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

    @property
    def curvatures(self) -> Tensor:
        """(m,): eigenvalues of the loss's Hessian, the largest first."""
        return 2 * self.scale * self.singular.square()

    @property
    def rank(self) -> int:
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


def krylov_spectrum(design: Design, start: Tensor) -> Spectrum:
    """The singular values that the residual at ``start`` shows, by Golub and Kahan's Lanczos.

    Two passes over the rows for each step, v → Φᵀ(Φ v) taken apart so that nothing is squared. The
    extremes settle first, and a descent from ``start`` of fewer epochs than steps is followed
    exactly. The new directions are kept orthogonal to all before.
    """
    elements = 2**22

    def forward(v: Tensor, minus_target: bool = False) -> Tensor:
        parts = []
        for features, target, weight in design.blocks(torch.float64, elements):
            part = features @ v.to(features.device)
            part = part - target if minus_target else part
            parts.append(part if weight is None else part * weight.sqrt())
        return torch.cat(parts)

    def backward(u: Tensor) -> Tensor:
        total, first = torch.zeros(design.shape, dtype=torch.float64), 0
        for features, target, weight in design.blocks(torch.float64, elements):
            part = u[first : first + len(target)]
            first += len(target)
            part = part if weight is None else part * weight.sqrt()
            total += (features.T @ part).cpu()
        return total

    u = forward(start, minus_target=True)
    beta = first_beta = float(torch.linalg.vector_norm(u))
    basis: list[Tensor] = []
    alphas: list[float] = []
    betas: list[float] = []
    v = torch.zeros(design.shape, dtype=torch.float64)
    largest, spanned = 0.0, False
    while beta > 1e-14 * largest and len(basis) < _STEPS:
        u = u / beta
        v = backward(u) - beta * v if alphas else backward(u)
        flat = v.reshape(-1)
        for _ in range(2):
            if basis:
                known = torch.stack(basis)
                flat = flat - known.T @ (known @ flat)
        alpha = float(torch.linalg.vector_norm(flat))
        spanned = alpha <= 1e-14 * largest or alpha == 0
        if spanned:
            break
        v = (flat / alpha).reshape(design.shape)
        basis.append(v.reshape(-1))
        alphas.append(alpha)
        u = forward(v) - alpha * u
        beta = float(torch.linalg.vector_norm(u))
        betas.append(beta)
        largest = max(largest, alpha, beta)
    m = len(basis)
    bidiagonal = torch.zeros(m + 1, m, dtype=torch.float64)
    bidiagonal.diagonal().copy_(torch.tensor(alphas, dtype=torch.float64))
    bidiagonal.diagonal(-1).copy_(torch.tensor(betas, dtype=torch.float64))
    with threads_for(bidiagonal):
        left, singular, right = torch.linalg.svd(bidiagonal, full_matrices=False)
    residual = first_beta * left[0]
    rest = max(first_beta**2 - float(residual.square().sum()), 0.0)
    known = torch.stack(basis) if basis else torch.zeros(0, design.shape[0] * design.shape[1])
    return Spectrum(
        singular,
        right @ known.to(torch.float64),
        residual[:, None],
        start,
        rest,
        1 / design.total if design.mean else 1.0,
        1e-13 * (float(singular[0]) if m else 0.0),
        False,
        complete=spanned or beta <= 1e-14 * largest,
    )
