"""Losses with their gradients in one pass, drop-in under autograd.

NaN and infinity in the data are no error: a NaN in any row makes the loss and the gradients that
depend on it NaN, an infinity makes them infinite or NaN, as IEEE arithmetic has it. (Where an
infinity meets another, PyTorch's order of the same operations may give NaN for our infinity.)
"""

import torch
from torch import Tensor

from . import _autograd

__all__ = [
    "legendre_mse_loss",
    "legendre_p3",
    "linear_mse_loss",
    "mse_loss",
    "polynomial_mse_loss",
]


def _check(reduction: str, allowed: tuple[str, ...], **tensors: object) -> None:
    if reduction not in allowed:
        raise ValueError(f"reduction: expected {' or '.join(allowed)}, got {reduction!r}")
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
        if not value.is_cpu or value.layout is not torch.strided:
            raise ValueError(
                f"{name}: expected a dense CPU tensor, got {value.layout} on {value.device}"
            )


def _check_constant(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.requires_grad:
            raise ValueError(
                f"{name}: expected a tensor that does not require grad, got one that does; "
                f"use {name}.detach(), or gdcore.reference, which differentiates everything"
            )


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Mean squared error, without the factor ½, and its gradient in one pass.

    ``loss = Σ (input - target)² / n`` (``mean``), without the division (``sum``), or every square
    (``none``).

    Args:
        input: predictions, any shape, float32 or float64, on the CPU.
        target: the same shape and dtype; nothing is broadcast.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss: shape ``()``, or that of ``input`` for ``none``. The mean of nothing is NaN.

    Raises:
        TypeError: an argument is not a tensor, or its dtype is not one of the two, or differs.
        ValueError: the shapes differ, a tensor is not on the CPU, or ``reduction`` is unknown.

    Example:
        >>> prediction = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> loss = gdcore.functional.mse_loss(prediction, torch.tensor([2.0, 2.0, 5.0]))
        >>> loss.backward()
        >>> loss.item(), prediction.grad.tolist()
        (1.6666666269302368, [-0.6666666865348816, 0.0, -1.3333333730697632])

    Reference:
        ``torch.nn.functional.mse_loss``.
    """
    _check(reduction, ("mean", "sum", "none"), input=input, target=target)
    loss: Tensor = _autograd.Mse.apply(input, target, reduction)  # type: ignore[no-untyped-call]
    return loss


def linear_mse_loss(
    x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, reduction: str = "mean"
) -> Tensor:
    """Squared error of a linear model, and all its gradients, in one pass over ``x``.

    ``loss = Σ (x weightᵀ + bias - target)² / (n k)`` (``mean``), or without the division
    (``sum``). The (n, k) prediction is never stored.

    Args:
        x: features, shape ``(n, d)``, float32 or float64, any strides.
        weight: shape ``(k, d)``, as ``torch.nn.Linear`` stores it.
        bias: shape ``(k,)``, or None.
        target: shape ``(n, k)``, does not require grad.
        reduction: ``"mean"`` or ``"sum"``.

    Returns:
        The loss, shape ``()``, differentiable in ``x``, ``weight`` and ``bias``.

    Raises:
        TypeError: an argument is not a tensor, or its dtype is not float32 or float64, or differs.
        ValueError: a shape does not fit, a tensor is not on the CPU, ``target`` requires grad, or
            ``reduction`` is unknown.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> weight = torch.zeros(1, 1, requires_grad=True)
        >>> bias = torch.zeros(1, requires_grad=True)
        >>> loss = gdcore.functional.linear_mse_loss(x, weight, bias, 2 * x)
        >>> loss.backward()
        >>> loss.item(), weight.grad.item(), bias.grad.item()
        (18.66666603088379, -18.66666603088379, -8.0)

    Reference:
        ``torch.nn.functional.linear`` followed by ``torch.nn.functional.mse_loss``.
    """
    if bias is None:
        _check(reduction, ("mean", "sum"), x=x, weight=weight, target=target)
    else:
        _check(reduction, ("mean", "sum"), x=x, weight=weight, bias=bias, target=target)
    if target.requires_grad:
        _check_constant(target=target)
    loss: Tensor = _autograd.LinearMse.apply(x, weight, bias, target, reduction)  # type: ignore[no-untyped-call]
    return loss


def polynomial_mse_loss(
    x: Tensor, coefficients: Tensor, target: Tensor, reduction: str = "mean"
) -> Tensor:
    """Squared error of a polynomial, and its gradient, in one pass over ``x``.

    ``loss = Σᵢ (Σₘ coefficients[m] xᵢᵐ - targetᵢ)² / n`` (``mean``), or without the division
    (``sum``). The powers of ``x`` are formed in registers and never stored.

    Args:
        x: points, shape ``(n,)``, float32 or float64, does not require grad.
        coefficients: ascending powers, shape ``(degree + 1,)``, degree 0 to 16.
        target: shape ``(n,)``, does not require grad.
        reduction: ``"mean"`` or ``"sum"``.

    Returns:
        The loss, shape ``()``, differentiable in ``coefficients``.

    Raises:
        TypeError: an argument is not a tensor, or its dtype is not float32 or float64, or differs.
        ValueError: a shape does not fit, a tensor is not on the CPU, ``x`` or ``target`` requires
            grad, or ``reduction`` is unknown.

    Example:
        >>> x = torch.tensor([-1.0, 0.0, 2.0])
        >>> c = torch.tensor([1.0, 0.0, 1.0], requires_grad=True)  # 1 + x²
        >>> gdcore.functional.polynomial_mse_loss(x, c, torch.zeros(3), reduction="sum").item()
        30.0

    Reference:
        Horner's rule: Knuth, The Art of Computer Programming 2, 4.6.4.
    """
    _check(reduction, ("mean", "sum"), x=x, coefficients=coefficients, target=target)
    _check_constant(x=x, target=target)
    loss: Tensor = _autograd.PolynomialMse.apply(x, coefficients, target, reduction)  # type: ignore[no-untyped-call]
    return loss


def legendre_mse_loss(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    target: Tensor,
    reduction: str = "mean",
) -> Tensor:
    """Squared error of ``a + b P₃(c + d x)``, and its four gradients, in one pass over ``x``.

    ``loss = Σᵢ (a + b P₃(c + d xᵢ) - targetᵢ)² / n`` (``mean``), or without the division
    (``sum``), with ``P₃(u) = (5u³ - 3u) / 2``.

    Args:
        x: points, shape ``(n,)``, float32 or float64, does not require grad.
        a: offset, one value.
        b: scale, one value.
        c: offset of the argument, one value.
        d: scale of the argument, one value.
        target: shape ``(n,)``, does not require grad.
        reduction: ``"mean"`` or ``"sum"``.

    Returns:
        The loss, shape ``()``, differentiable in ``a``, ``b``, ``c`` and ``d``.

    Raises:
        TypeError: an argument is not a tensor, or its dtype is not float32 or float64, or differs.
        ValueError: a shape does not fit, a tensor is not on the CPU, ``x`` or ``target`` requires
            grad, or ``reduction`` is unknown.

    Example:
        >>> x = torch.tensor([0.0, 1.0, 2.0])
        >>> a, b, c, d = torch.tensor([0.0, 1.0, 0.0, 1.0])
        >>> gdcore.functional.legendre_mse_loss(x, a, b, c, d, torch.zeros(3), "sum").item()
        290.0

    Reference:
        "Learning PyTorch with examples", the custom ``autograd.Function``.
    """
    _check(reduction, ("mean", "sum"), x=x, a=a, b=b, c=c, d=d, target=target)
    _check_constant(x=x, target=target)
    loss: Tensor = _autograd.LegendreMse.apply(x, a, b, c, d, target, reduction)  # type: ignore[no-untyped-call]
    return loss


def legendre_p3(x: Tensor) -> Tensor:
    """The Legendre polynomial of degree three, elementwise: ``P₃(x) = (5x³ - 3x) / 2``.

    Args:
        x: any shape, float32 or float64, on the CPU.

    Returns:
        ``P₃(x)``, the shape of ``x``; its derivative is ``P₃′(x) = 3 (5x² - 1) / 2``.

    Raises:
        TypeError: ``x`` is not a tensor of float32 or float64.
        ValueError: ``x`` is not on the CPU.

    Example:
        >>> gdcore.functional.legendre_p3(torch.tensor([1.0, 2.0]))
        tensor([ 1., 17.])

    Reference:
        Abramowitz and Stegun, Handbook of Mathematical Functions, table 22.9.
    """
    _check("mean", ("mean",), x=x)
    value: Tensor = _autograd.LegendreP3.apply(x)  # type: ignore[no-untyped-call]
    return value
