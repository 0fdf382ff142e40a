"""The largest learning rate with which gradient descent converges on a quadratic."""

from typing import Any

import torch
from torch import Tensor

from ._problem import Problem

__all__ = ["curvature_bound", "largest_stable_lr"]

_BLOCK_ELEMENTS = 2**16
_DEVICE_BLOCK_ELEMENTS = 2**24


def curvature_bound(problem: Problem) -> float | None:
    """A number that the largest curvature of an affine problem is not above: that of the trace.

    One pass over x, where the curvature itself takes a factorisation. None for a model that is not
    affine, and where a parameter stands in several places.

    Reference:
        The largest eigenvalue of a matrix that is positive semidefinite is at most its trace.
    """
    x, weight = problem.x, problem.weight
    rows, outputs = x.shape[0], max(problem.y.numel() // x.shape[0], 1)
    index = problem.index
    if problem.kernel == "linear":
        squares = _squares(x) + (rows if len(problem.parameters) > 1 else 0)
    elif problem.kernel == "polynomial":
        squares = _squares(x, problem.parameters[0].numel())
    elif index is not None and index.unique().numel() == index.numel():
        squares = _squares(x)
    else:
        return None
    largest, divisor = 1.0, float(rows * outputs)
    if weight is not None:
        largest, divisor = float(weight.max()), float(weight.sum(dtype=torch.float64))
    return 2 * largest * squares / (divisor if problem.mean else 1.0)


def _squares(x: Tensor, powers: int | None = None) -> float:
    """Σ x², or that of so many powers of x, rounded up.

    In blocks, each rounded by at most its size times ε; Ctrl-C is answered between them.
    """
    total = 0.0
    columns = max(powers or x.numel() // x.shape[0], 1)
    rows = max((_BLOCK_ELEMENTS if x.is_cpu else _DEVICE_BLOCK_ELEMENTS) // columns, 1)
    # A device's double costs nothing beside its memory, and its blocks are too large for a float.
    dtype = x.dtype if x.is_cpu else torch.float64
    for start in range(0, x.shape[0], rows):
        block = x[start : start + rows]
        if powers is not None:
            block = torch.vander(block.double(), powers)
        norm: Any = torch.linalg.vector_norm(block, dtype=None if x.is_cpu else dtype)
        total += float(norm) ** 2
    return total * (1 + min(rows * columns, x.numel()) * torch.finfo(dtype).eps)


def largest_stable_lr(optimizer: Any, curvature: float) -> float | None:
    r"""The largest rate of SGD that converges on a quadratic.

    With the largest curvature λ (that of the weight decay included) and momentum β it is
    ``2 (1 + β) / λ``, with dampening τ that over ``1 - τ``, and with Nesterov momentum
    ``2 (1 + β) / ((1 + 2 β) λ)``.

    Args:
        optimizer: the optimizer.
        curvature: the largest eigenvalue of the loss's Hessian.

    Returns:
        The rate, or None where there is none to be known: another optimizer than SGD, groups with
        settings of their own, ascent.

    Example:
        >>> from gdcore._stability import largest_stable_lr
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> largest_stable_lr(torch.optim.SGD([weight], lr=0.1, momentum=0.5), 4.0)
        0.75

    Reference:
        Polyak, Some methods of speeding up the convergence of iteration methods, 1964.
    """
    settings = [
        tuple(
            group.get(key)
            for key in ("momentum", "dampening", "weight_decay", "nesterov", "maximize")
        )
        for group in optimizer.param_groups
    ]
    momentum, dampening, weight_decay, nesterov, maximize = settings[0]
    if dampening is None or settings.count(settings[0]) < len(settings) or maximize:
        return None
    curvature += weight_decay
    if curvature <= 0 or dampening >= 1:
        return None
    if nesterov:
        curvature *= 1 + 2 * momentum
    elif momentum != 0:
        curvature *= 1 - dampening
    return float(2 * (1 + momentum) / curvature)
