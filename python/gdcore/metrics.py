"""How well predictions fit: numbers to report, not to train by."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["mae", "mse", "r2"]

Metric = Callable[[Tensor, Tensor], Tensor]


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error: ``Σ (prediction - target)² / N``.

    Args:
        prediction: any shape.
        target: the same shape.

    Returns:
        The mean over all N elements, shape ``()``.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> gdcore.metrics.mse(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])).item()
        2.0

    Reference:
        ``sklearn.metrics.mean_squared_error``.
    """
    return _difference(prediction, target).square().mean()


def mae(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error: ``Σ |prediction - target| / N``.

    Args:
        prediction: any shape.
        target: the same shape.

    Returns:
        The mean over all N elements, shape ``()``.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> gdcore.metrics.mae(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])).item()
        1.0

    Reference:
        ``sklearn.metrics.mean_absolute_error``.
    """
    return _difference(prediction, target).abs().mean()


def r2(prediction: Tensor, target: Tensor) -> Tensor:
    """The share of the target's variance that is explained: ``1 - Σ (p - t)² / Σ (t - mean t)²``.

    1 is a perfect fit, 0 as good as the mean alone. For several outputs it is the mean of theirs. A
    target without variance counts 1 where it is met exactly, else 0.

    Args:
        prediction: shape ``(n, …)``.
        target: the same shape.

    Returns:
        The coefficient of determination, shape ``()``.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> target = torch.tensor([1.0, 2.0, 3.0])
        >>> gdcore.metrics.r2(torch.tensor([1.0, 2.0, 2.0]), target).item()
        0.5

    Reference:
        ``sklearn.metrics.r2_score``.
    """
    left = _difference(prediction, target).square().sum(0)
    total = (target - target.mean(0)).square().sum(0)
    constant = (left == 0).to(left.dtype)
    return torch.where(total > 0, 1 - left / total, constant).mean()


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    if prediction.shape != target.shape:
        raise ValueError(
            f"target: expected the prediction's shape {tuple(prediction.shape)}, "
            f"got {tuple(target.shape)}"
        )
    return prediction - target


BY_NAME: dict[str, Metric] = {"mse": mse, "mae": mae, "r2": r2}
