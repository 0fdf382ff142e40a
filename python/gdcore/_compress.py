"""A least-squares problem of a few rows in place of one of many."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from . import _checks
from ._native.triangle import Block, triangle

__all__ = ["Compressed", "compress"]


class Compressed(NamedTuple):
    """What `compress` leaves: a few rows, and how many they stand for.

    Attributes:
        data: ``(x, y)``, the few rows.
        rows: how many there were; with weights, the weights' sum.

    Example:
        >>> small = gdcore.compress(torch.randn(100, 3), torch.randn(100, 1))
        >>> (x, y), rows = small
        >>> x is small.x, y is small.y, small.rows
        (True, True, 100)
    """

    data: tuple[Tensor, Tensor]
    rows: float

    @property
    def x(self) -> Tensor:
        return self.data[0]

    @property
    def y(self) -> Tensor:
        return self.data[1]


def compress(x: Tensor, y: Tensor, weight: Tensor | None = None, bias: bool = True) -> Compressed:
    r"""A small problem that has the loss, gradient and curvature of a large one, for every θ.

    A QR factorisation in float64, ``√w [1 | x | y] = Q R``, leaves 1 + d + k rows. They are turned
    (``R → H R``, H orthogonal) and scaled so that the column of ones is one of ones again, and so
    that the *mean* over the few rows is the mean over the many: an ordinary ``nn.Linear`` with
    ``nn.MSELoss()`` trains on them exactly as on all rows, with every optimizer. A *sum* over all
    rows is ``rows / len(x)`` times the sum over the few.

    Pieces are compressed one by one, and stacked with weights ``rows / len(x)``: compressed again,
    they are the whole.

    Args:
        x: (n, d), of float32 or float64.
        y: (n,) or (n, k), of the same dtype.
        weight: (n,), the weight of each row's loss, not negative; the mean is then
            ``Σ w r² / Σ w``.
        bias: whether the model has one. Without, there is one row less.

    Returns:
        ``(x, y)`` of min(n, 1 + d + k) rows in the same dtype, and the count of rows that they
        stand for.

    Raises:
        TypeError: an argument that is not a tensor of float32 or float64, or a bias not a bool.
        ValueError: shapes that do not fit, no rows, no columns, a tensor that is not dense, a value
            that is not finite, a negative weight, or no weight that is positive.

    Example:
        >>> x = torch.randn(1_000_000, 63)
        >>> y = x.sum(1, keepdim=True) + 0.1 * torch.randn(1_000_000, 1)
        >>> (small_x, small_y), rows = gdcore.compress(x, y)
        >>> small_x.shape, small_y.shape, rows
        (torch.Size([65, 63]), torch.Size([65, 1]), 1000000)
        >>> model, loss_fn = torch.nn.Linear(63, 1), torch.nn.MSELoss()
        >>> torch.allclose(loss_fn(model(small_x), small_y), loss_fn(model(x), y), rtol=1e-4)
        True

    Reference:
        Golub and Van Loan, Matrix Computations, 5.3; Demmel et al., Communication-optimal parallel
        and sequential QR and LU factorizations, 2012.
    """
    _check(x, y, weight, bias)
    x, y, weight = x.detach(), y.detach(), None if weight is None else weight.detach()
    n, one = x.shape[0], 1 if bias else 0
    targets = y if y.dim() == 2 else y.unsqueeze(1)
    d, k = x.shape[1], targets.shape[1]

    def rows(start: int, stop: int) -> Block:
        columns = (x[start:stop], targets[start:stop])
        ones = (None,) if bias else ()
        return Block(ones + columns, None if weight is None else weight[start:stop])

    total = float(n) if weight is None else weight.sum(dtype=torch.float64).item()
    if total == 0.0:
        raise ValueError("weight: expected at least one that is positive, got none")
    factor = triangle(rows, n, one + d + k, device=x.device)
    if not factor.isfinite().all():
        raise ValueError("x, y: expected values that are finite, got some that are not")
    if bias:
        factor = _ones_first(factor)
    factor = factor * math.sqrt(len(factor) / total)
    small_x = factor[:, one : one + d].to(x.dtype)
    small_y = factor[:, one + d :].to(y.dtype).reshape(len(factor), *y.shape[1:])
    return Compressed((small_x, small_y), n if weight is None else total)


def _ones_first(factor: Tensor) -> Tensor:
    """The factor, reflected so that its first column, a multiple of e₁, is equal everywhere."""
    factor = factor if factor[0, 0] >= 0 else -factor
    size = len(factor)
    # e₁ and (1, …, 1) / √size are reflected into each other along their difference.
    along = factor.new_full((size, 1), -1 / math.sqrt(size))
    along[0] += 1.0
    squared = 2 - 2 / math.sqrt(size)
    return factor - (2 / squared) * along * (along.T @ factor) if size > 1 else factor


def _check(x: Tensor, y: Tensor, weight: Tensor | None, bias: bool) -> None:
    if not isinstance(bias, bool):
        raise TypeError(f"bias: expected a bool, got {type(bias).__name__}")
    for name, tensor in (("x", x), ("y", y), ("weight", weight)):
        if tensor is None and name == "weight":
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
        if tensor.device.type not in ("cpu", "cuda"):
            raise ValueError(f"{name}: expected a CPU tensor, got one on {tensor.device}")
        if tensor.layout is not torch.strided:
            raise ValueError(f"{name}: expected a dense tensor with storage, got {tensor.layout}")
        if tensor.device != x.device:
            raise ValueError(f"{name}: expected it on {x.device} as x, got one on {tensor.device}")
        if tensor.dtype not in _checks.NATIVE or tensor.dtype != x.dtype:
            expected = "torch.float32 or torch.float64" if name == "x" else f"{x.dtype} as x"
            raise TypeError(f"{name}: expected dtype {expected}, got {tensor.dtype}")
    shape = tuple(x.shape)
    if x.dim() != 2 or shape[0] == 0:
        raise ValueError(f"x: expected shape (n, d) with at least one row, got {shape}")
    if y.dim() not in (1, 2) or y.shape[0] != shape[0]:
        n = shape[0]
        raise ValueError(f"y: expected shape ({n},) or ({n}, k) as x, got {tuple(y.shape)}")
    columns = x.shape[1] + (y.shape[1] if y.dim() == 2 else 1)
    if not bias and columns == 0:
        raise ValueError("x: expected a column of x or y, or a bias, got none of them")
    if weight is None:
        return
    if weight.shape != x.shape[:1]:
        raise ValueError(f"weight: expected shape ({shape[0]},) as x, got {tuple(weight.shape)}")
    if not weight.isfinite().all():
        raise ValueError("weight: expected weights that are finite, got some that are not")
    if not (weight >= 0).all():
        raise ValueError("weight: expected weights that are not negative, got some that are")
