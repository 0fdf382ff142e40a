"""The figures of a least-squares problem, and a warning of those that are estimates."""

from __future__ import annotations

import warnings

from .quadratic import Quadratic
from .spectrum import MOST_EXACT

__all__ = ["figures"]


def figures(quadratic: Quadratic) -> tuple[float, float, int]:
    """The largest and smallest curvature and the rank.

    Raises:
        ValueError: the squares of the data are beyond a float64.

    Warns:
        RuntimeWarning: the ends of the spectrum have not settled.
    """
    spectrum, rank = quadratic.spectrum, quadratic.rank
    curvatures, outputs = spectrum.curvatures, spectrum.residual.shape[1]
    squares = curvatures.sum() + spectrum.residual.square().sum() + spectrum.rest
    if not squares.isfinite() or (rank and curvatures[0] == 0):
        raise ValueError("data: expected numbers whose squares a float64 holds, got others")
    largest_settled, smallest_settled = spectrum.settled
    if not (largest_settled and smallest_settled):
        doubts = []
        if not largest_settled:
            doubts.append(
                "largest_curvature may be larger than shown, and largest_stable_lr, best_lr and "
                "best_momentum_lr smaller"
            )
        if not smallest_settled:
            doubts.append(
                "smallest_curvature may be smaller than shown; condition_number, rank, rate, "
                "best_lr, best_momentum, best_momentum_lr and best_momentum_rate may be larger"
            )
        warnings.warn(
            f"data: with more than {MOST_EXACT} features some figures are estimates: "
            f"{'; '.join(doubts)}",
            RuntimeWarning,
            stacklevel=4,
        )
    if rank == 0:
        return 0.0, 0.0, 0
    return float(curvatures[0]), quadratic.flattest[0], rank * outputs
