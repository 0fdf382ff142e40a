"""The largest learning rate with which gradient descent converges on a quadratic."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _ops
from .problem import Problem

__all__ = ["curvature_bound", "largest_stable_lr", "surely_stable"]

_BLOCK_ELEMENTS = 2**16
_DEVICE_BLOCK_ELEMENTS = 2**24
_EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}
_SMALL = 2**14
"""Numbers that are squared and added up in less time than torch takes to begin."""
_FEW = 2**12
"""Places that Python looks at in less time than torch sorts them."""


def _blocks(x: Tensor) -> Iterable[Tensor]:
    """Rows of x: no copy of all of them, and Ctrl-C is answered in between."""
    elements = _BLOCK_ELEMENTS if x.is_cpu else _DEVICE_BLOCK_ELEMENTS
    if x.numel() <= elements:
        return (x,)
    rows = max(elements * x.shape[0] // x.numel(), 1)
    return (x[start : start + rows] for start in range(0, x.shape[0], rows))


def _squares(x: Tensor) -> float:
    """Σ x², rounded up: a block's sum is off by at most its size times ε."""
    if x.is_cpu and x.numel() <= _SMALL:
        return _ops.sum_of_squares(x) * (1 + x.numel() * _EPS[torch.float64])
    total = 0.0
    # A device's double costs nothing beside its memory, and its blocks are too large for a float.
    dtype = x.dtype if x.is_cpu else torch.float64
    for block in _blocks(x):
        norm: Any = torch.linalg.vector_norm(block, dtype=dtype)
        total += norm.item() ** 2 * (1 + block.numel() * _EPS[dtype])
    return total


def _squares_of_powers(x: Tensor, size: int) -> float:
    """Σ 1 + x² + x⁴ + …, so many powers: in float64, by Horner's rule in x²; rounded up."""
    total = 0.0
    for block in _blocks(x):
        square = block.double().square()
        value = torch.ones_like(square)
        for _ in range(size - 1):
            value.mul_(square).add_(1)
        total += float(value.sum())
    return total * (1 + (size + min(x.numel(), _DEVICE_BLOCK_ELEMENTS)) * _EPS[torch.float64])


def _are_apart(places: Tensor) -> bool:
    if places.numel() <= _FEW:
        return len(set(places.flatten().tolist())) == places.numel()
    return len(places.unique()) == places.numel()


def curvature_bound(problem: Problem) -> float | None:
    """A number that the largest curvature of an affine problem is not above: that of the trace.

    One pass over x, where the curvature itself takes a factorisation. None for a model that is not
    affine, and where a parameter stands in several places.

    Reference:
        The largest eigenvalue of a matrix that is positive semidefinite is at most its trace.
    """
    x, weight = problem.x, problem.weight
    rows, outputs = x.shape[0], max(problem.y.numel() // x.shape[0], 1)
    if problem.kernel == "polynomial":
        squares = _squares_of_powers(x, problem.parameters[0].numel())
    elif problem.kernel == "linear":
        squares = _squares(x) + (rows if len(problem.parameters) > 1 else 0)
    elif problem.index is not None and _are_apart(problem.index):
        squares = _squares(x)
    else:
        return None
    largest, divisor = 1.0, float(rows * outputs)
    if weight is not None:
        largest, divisor = float(weight.max()), float(weight.sum(dtype=torch.float64))
    return 2 * largest * squares / (divisor if problem.mean else 1.0)


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
        >>> from gdcore._native.stability import largest_stable_lr
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> largest_stable_lr(torch.optim.SGD([weight], lr=0.1, momentum=0.5), 4.0)
        0.75

    Reference:
        Polyak, Some methods of speeding up the convergence of iteration methods, 1964.
    """
    descent = _descent(optimizer)
    return None if descent is None else descent.largest_rate(curvature)


class _Descent(NamedTuple):
    """What of SGD's settings decides about the largest rate."""

    numerator: float
    factor: float
    weight_decay: float

    def largest_rate(self, curvature: float) -> float | None:
        curvature += self.weight_decay
        return None if curvature <= 0 else self.numerator / (curvature * self.factor)


def _descent(optimizer: Any) -> _Descent | None:
    first, *others = optimizer.param_groups
    momentum, dampening = first.get("momentum"), first.get("dampening")
    if dampening is None or first["maximize"] or any(_differ(first, other) for other in others):
        return None
    if dampening >= 1:
        return None
    factor = 1.0
    if first["nesterov"]:
        factor = 1 + 2 * momentum
    elif momentum != 0:
        factor = 1 - dampening
    return _Descent(float(2 * (1 + momentum)), float(factor), float(first["weight_decay"]))


def _differ(group: dict[str, Any], other: dict[str, Any]) -> bool:
    names = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
    return any(group[name] != other[name] for name in names)


def surely_stable(
    problem: Problem, optimizer: torch.optim.Optimizer, rate: float, clip: float | None
) -> bool:
    """Whether there is no largest stable rate to be looked for, or it is surely above ``rate``."""
    descent = None if clip is not None else _descent(optimizer)
    if descent is None:
        return True
    x = problem.x
    plain = (x.is_cpu or x.is_cuda) and x.layout is torch.strided and x.numel() > 0
    if not plain or x.dtype not in (torch.float32, torch.float64) or problem.y.numel() == 0:
        return True  # refused when it runs
    if problem.kernel == "polynomial" and x.dim() != 1:
        return True
    bound = curvature_bound(problem)
    if bound is None:
        return False
    limit = descent.largest_rate(bound)
    return not math.isfinite(bound) or limit is None or rate <= limit
