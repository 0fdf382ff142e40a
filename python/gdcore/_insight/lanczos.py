"""Least-squares problems too large to be factorised: by products with Φ and Φᵀ alone.

Each product is a pass over the rows, in float64. v → Φᵀ(Φ v) is taken apart, so that nothing is
squared.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .._native.triangle import threads_for
from .design import Design
from .spectrum import Spectrum

__all__ = ["MOST_ITERATIONS", "krylov_spectrum", "nearest_optimum", "random_spectrum"]

_ELEMENTS = 2**22

_STEPS = 300
"""Of Golub and Kahan's bidiagonalisation; the largest values have nearly always settled."""

_SETTLED = 1e-6
"""What a curvature may be off, relative to itself, and count as settled."""

MOST_ITERATIONS = 1000
"""Of conjugate gradients."""

_FLAT = 1e-10
"""At an optimum ‖Φᵀ e‖ is at most this share of ‖Φ‖ ‖e‖."""

_GONE = 1e-12
"""Or ‖e‖ is at most this share of what it was at the start."""


class _Rows:
    """√weight Φ as an operator."""

    def __init__(self, design: Design) -> None:
        self.design = design

    def residual(self, theta: Tensor) -> Tensor:
        """Φ Θ - y."""
        return self.times(theta, minus_target=True)

    def times(self, theta: Tensor, minus_target: bool = False) -> Tensor:
        parts = []
        for features, target, weight in self.design.blocks(torch.float64, _ELEMENTS):
            part = features @ theta.to(features.device)
            part = part - target if minus_target else part
            parts.append(part if weight is None else part * weight.sqrt())
        return torch.cat(parts)

    def transposed(self, u: Tensor) -> Tensor:
        """Φᵀ u."""
        total, first = torch.zeros(self.design.shape, dtype=torch.float64, device="cpu"), 0
        for features, target, weight in self.design.blocks(torch.float64, _ELEMENTS):
            part = u[first : first + len(target)]
            first += len(target)
            part = part if weight is None else part * weight.sqrt()
            total += (features.T @ part).cpu()
        return total


def krylov_spectrum(design: Design, start: Tensor) -> Spectrum:
    """The singular values that the residual at ``start`` shows: what a descent from there sees.

    One of fewer epochs than steps is followed exactly.
    """
    rows = _Rows(design)
    return _bidiagonalised(rows, start, rows.residual(start))


def random_spectrum(design: Design, start: Tensor) -> Spectrum:
    """The extreme singular values of Φ, and some between, whatever the residual shows of them.

    Its residual is that of no place: descents are `krylov_spectrum`'s.
    """
    rows = _Rows(design)
    residual = rows.residual(start)
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(residual.shape, generator=generator, dtype=torch.float64, device="cpu").to(
        residual.device
    )
    found = _bidiagonalised(rows, start, u)
    return dataclasses.replace(
        found,
        residual=torch.zeros_like(found.residual),
        rest=float(residual.square().sum()),
    )


def _bidiagonalised(rows: _Rows, start: Tensor, u: Tensor) -> Spectrum:
    """Golub and Kahan's Lanczos from u; the new directions are kept orthogonal to all before."""
    shape = rows.design.shape
    beta = first_beta = float(torch.linalg.vector_norm(u))
    basis: list[Tensor] = []
    alphas: list[float] = []
    betas: list[float] = []
    v = torch.zeros(shape, dtype=torch.float64, device="cpu")
    largest, spanned = 0.0, False
    while beta > 1e-14 * largest and len(basis) < _STEPS:
        u = u / beta
        v = rows.transposed(u) - beta * v if alphas else rows.transposed(u)
        flat = v.reshape(-1)
        for _ in range(2):
            if basis:
                known = torch.stack(basis)
                flat = flat - known.T @ (known @ flat)
        alpha = float(torch.linalg.vector_norm(flat))
        spanned = alpha <= 1e-14 * largest or alpha == 0
        if spanned:
            break
        v = (flat / alpha).reshape(shape)
        basis.append(v.reshape(-1))
        alphas.append(alpha)
        u = rows.times(v) - alpha * u
        beta = float(torch.linalg.vector_norm(u))
        betas.append(beta)
        largest = max(largest, alpha, beta)
    m = len(basis)
    bidiagonal = torch.zeros(m + 1, m, dtype=torch.float64, device="cpu")
    bidiagonal.diagonal().copy_(torch.tensor(alphas, dtype=torch.float64, device="cpu"))
    bidiagonal.diagonal(-1).copy_(torch.tensor(betas, dtype=torch.float64, device="cpu"))
    with threads_for(bidiagonal):
        left, singular, right = torch.linalg.svd(bidiagonal, full_matrices=False)
    residual = first_beta * left[0]
    known = torch.stack(basis) if basis else torch.zeros(0, shape[0] * shape[1], device="cpu")
    complete = spanned or beta <= 1e-14 * largest
    tolerance = 1e-13 * (float(singular[0]) if m else 0.0)
    settled = complete, complete
    if m and not complete:
        # Φᵀ Φ v - s² v is s times the last element of the left vector, times at most ‖Φ‖.
        near = singular[0] * left[-1].abs() <= _SETTLED * singular
        settled = bool(near[0]), bool(near[singular > tolerance][-1])
    return Spectrum(
        singular,
        right @ known.to(torch.float64),
        residual[:, None],
        start,
        max(first_beta**2 - float(residual.square().sum()), 0.0),
        1 / rows.design.total if rows.design.mean else 1.0,
        tolerance,
        False,
        complete=complete,
        settled=settled,
    )


def nearest_optimum(design: Design, start: Tensor, largest: float) -> tuple[Tensor, float] | None:
    """Θ of least loss that is nearest to the start, and ‖Φ Θ - y‖² there, by conjugate gradients.

    Every step is a combination of rows of Φ, so that nothing else moves.

    Args:
        design: the problem.
        start: (q, k).
        largest: singular value of Φ.

    Returns:
        None where it takes more iterations than `MOST_ITERATIONS`.
    """
    rows = _Rows(design)
    theta, left = start.clone(), -rows.residual(start)
    first = float(torch.linalg.vector_norm(left))
    gradient = rows.transposed(left)
    direction, square = gradient, float(gradient.square().sum())
    for _ in range(MOST_ITERATIONS):
        size = float(torch.linalg.vector_norm(left))
        if size <= _GONE * first:
            return theta, 0.0
        if square**0.5 <= _FLAT * largest * size:
            return theta, float(rows.residual(theta).square().sum())
        moved = rows.times(direction)
        step = square / float(moved.square().sum())
        theta = theta + step * direction
        left = left - step * moved
        gradient, before = rows.transposed(left), square
        square = float(gradient.square().sum())
        direction = gradient + square / before * direction
    return None
