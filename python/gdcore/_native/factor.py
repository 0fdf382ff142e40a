"""Few rows in place of many: the triangular factor of features and targets.

For every θ, ``‖Φ θ - y‖² = ‖R (θ, -1)‖²`` with ``[Φ | y] = Q R`` and Q's columns orthonormal.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _ops
from .problem import Problem
from .triangle import Block, Columns, threads_for, triangle

__all__ = ["WORK_ON_CPU", "compressed", "features", "singular_values"]

WORK_ON_CPU = 10_000_000
"""Floating-point operations up to which rows on a device are factorised on the CPU, which is done
before a device's library has been launched.
"""


def features(problem: Problem) -> tuple[Callable[[int, int], Columns], Tensor]:
    """Φ of a problem whose prediction is linear in its parameters, and where each column counts.

    Returns:
        The columns of rows of Φ (n, q), and the index (k, q) of an indexed problem.

    Raises:
        ValueError: the prediction is not linear in the parameters.
    """
    x = problem.x
    if problem.kernel == "indexed":
        assert problem.index is not None
        return lambda start, stop: (x[start:stop],), problem.index
    if problem.kernel == "polynomial":
        size = problem.parameters[0].numel()
        return (
            lambda start, stop: (torch.vander(x[start:stop].double(), size, increasing=True),),
            torch.arange(size, device="cpu").unsqueeze(0),
        )
    if problem.kernel != "linear":
        raise ValueError(
            "method: expected a model that is affine in its parameters for 'compressed', got "
            f"the kernel {problem.kernel}"
        )
    outputs, columns = problem.parameters[0].shape
    if len(problem.parameters) == 1:
        return lambda start, stop: (x[start:stop],), _places(outputs, columns)

    def with_ones(start: int, stop: int) -> Columns:
        return x[start:stop], None

    if outputs == 1:
        return with_ones, _places(1, columns + 1)
    weights = _places(outputs, columns)
    return with_ones, torch.cat((weights, _places(outputs, 1) + outputs * columns), 1)


def _places(outputs: int, columns: int) -> Tensor:
    return torch.arange(outputs * columns, device="cpu").reshape(outputs, columns)


def compressed(problem: Problem) -> Problem:
    """The same loss, as a sum over min(n, q + k) rows in float64 on the CPU, of an indexed model.

    With weights that differ between the outputs, every output has rows and columns of its own.
    """
    columns_of, index = features(problem)
    n, outputs = problem.x.shape[0], len(index)
    if not problem.x.is_cpu and 2 * n * (index.shape[1] + outputs) ** 2 <= WORK_ON_CPU:
        problem = _on_cpu(problem)
        columns_of, index = features(problem)
    y = problem.y.reshape(n, outputs)
    weight = None if problem.weight is None else problem.weight.reshape(n, outputs)
    if weight is not None and not (weight >= 0).all():
        raise ValueError("weight: expected none that is negative for 'compressed', got some")
    parts: list[tuple[Tensor, Tensor | None]]
    if weight is not None and outputs > 1 and bool((weight[:, :1] != weight).any()):
        parts = [(y[:, o : o + 1], weight[:, o : o + 1]) for o in range(outputs)]
    else:
        parts = [(y, weight)]
    columns = index.shape[1]
    factors = []
    for targets, weights in parts:

        def augmented(start: int, stop: int, t: Tensor = targets, w: Any = weights) -> Block:
            joined = (*columns_of(start, stop), t[start:stop])
            return Block(joined, None if w is None else w[start:stop, 0])

        width = columns + targets.shape[1]
        few = n <= width
        factors.append(
            augmented(0, n).matrix() if few else triangle(augmented, n, width, device=y.device)
        )
    divisor = 1.0
    if problem.mean:
        divisor = float(n * outputs)
        if weight is not None:
            divisor = weight.sum(dtype=torch.float64).item()
    scale = 1 / math.sqrt(divisor) if divisor else math.nan
    rows = factors[0]
    if len(factors) > 1:
        small = torch.block_diag(*(factor[:, :columns] for factor in factors))
        rows = torch.cat((small, torch.cat([factor[:, columns:] for factor in factors])), 1)
        index = index.reshape(1, -1)
    columns = index.shape[1]
    rows = rows.cpu().contiguous()
    # LAPACK says nothing of which number is not finite: nor does the loss.
    _ops.scale_finite(rows, scale)
    return problem._replace(
        kernel="indexed",
        x=rows[:, :columns],
        y=rows[:, columns:],
        weight=None,
        mean=False,
        flat=False,
        index=index.cpu(),
    )


def _on_cpu(problem: Problem) -> Problem:
    """With its rows there, and its parameters where they are."""
    weight, index = problem.weight, problem.index
    return problem._replace(
        x=problem.x.cpu(),
        y=problem.y.cpu(),
        weight=None if weight is None else weight.cpu(),
        index=None if index is None else index.cpu(),
    )


def singular_values(matrix: Tensor) -> Tensor:
    """In descending order."""
    with threads_for(matrix):
        values: Tensor = torch.linalg.svdvals(matrix)
    return values
