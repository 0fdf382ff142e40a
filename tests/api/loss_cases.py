"""Each loss with arguments, and PyTorch's own composition of it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import gdcore

functional = gdcore.functional


class Case(NamedTuple):
    """A function of the tensors that may require grad, twice."""

    fused: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]

    def leaves(self) -> list[Tensor]:
        return [t.detach().clone().requires_grad_() for t in self.inputs]


def mean_squares(
    prediction: Tensor, target: Tensor, reduction: str, weight: Tensor | None
) -> Tensor:
    """``F.mse_loss(weight=)`` as torch 2.13 has it, for those before."""
    if weight is None:
        return F.mse_loss(prediction, target, reduction=reduction)
    squares = torch.pow(prediction - target, 2) * weight
    if reduction == "mean":
        return squares.sum() / weight.sum()
    return squares.sum() if reduction == "sum" else squares


def cases(
    reduction: str = "mean", weighted: bool = False, dtype: torch.dtype = torch.float64
) -> dict[str, Case]:
    """Small problems whose gradients are nowhere zero; Legendre's has no weights."""
    n, d, k = 5, 3, 2
    x, points = torch.randn(n, d, dtype=dtype), torch.linspace(-0.9, 0.8, n, dtype=dtype)
    y, column = torch.randn(n, k, dtype=dtype), torch.randn(n, dtype=dtype)
    w = torch.rand(n, k, dtype=dtype) + 0.5 if weighted else None
    v = torch.rand(n, dtype=dtype) + 0.5 if weighted else None

    def powers(c: Tensor) -> Tensor:
        return torch.stack([c[m] * points**m for m in range(4)]).sum(0)

    def legendre(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        u = c + d * points
        return a + b * (5 * u**3 - 3 * u) / 2

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype)

    found = {
        "mse": Case(
            lambda i, t: functional.mse_loss(i, t, reduction, weight=w),
            lambda i, t: mean_squares(i, t, reduction, w),
            (random(n, k), random(n, k)),
        ),
        "linear_mse": Case(
            lambda x, weight, bias: functional.linear_mse_loss(
                x, weight, bias, y, reduction, loss_weight=w
            ),
            lambda x, weight, bias: mean_squares(F.linear(x, weight, bias), y, reduction, w),
            (x, random(k, d), random(k)),
        ),
        "polynomial_mse": Case(
            lambda c: functional.polynomial_mse_loss(points, c, column, reduction, weight=v),
            lambda c: mean_squares(powers(c), column, reduction, v),
            (random(4),),
        ),
        "legendre_mse": Case(
            lambda *abcd: functional.legendre_mse_loss(points, *abcd, column, reduction),
            lambda *abcd: mean_squares(legendre(*abcd), column, reduction, None),
            tuple(random() for _ in range(4)),
        ),
    }
    if weighted:
        del found["legendre_mse"]
    return found


def selections() -> list[tuple[str, str, bool]]:
    """Name, reduction and whether there are weights, of every case."""
    return [
        (name, reduction, weighted)
        for weighted in (False, True)
        for reduction in ("mean", "sum", "none")
        for name in cases(reduction, weighted)
    ]
