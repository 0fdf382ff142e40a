"""Losses with their gradients in one pass, drop-in under autograd.

NaN and infinity in the data are no error: a NaN in any row makes the loss and the gradients that
depend on it NaN, an infinity makes them infinite or NaN, as IEEE arithmetic has it. (Where an
infinity meets another, PyTorch's order of the same operations may give NaN for our infinity.)

Arguments are saved for the gradients of gradients: one that is changed in place before the backward
makes that raise torch's error about versions, a ``bias`` too, which ``F.linear`` would not miss.

All tensors of a call are on one device: the CPU, or CUDA where gdcore was built with it.

What a loss refuses raises a ValueError or a TypeError that is a RuntimeError as well, torch's kind.
"""

from torch import Tensor
from torch.nn._reduction import legacy_get_string

from . import _autograd, _losses

__all__ = [
    "legendre_mse_loss",
    "legendre_p3",
    "linear_mse_loss",
    "mse_loss",
    "polynomial_mse_loss",
]


def mse_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    weight: Tensor | None = None,
    *,
    size_average: bool | None = None,
    reduce: bool | None = None,
) -> Tensor:
    """Mean squared error, without the factor ½, and its gradient in one pass.

    ``loss = Σ w (input - target)² / Σ w`` (``mean``), without the division (``sum``), or every
    ``w (input - target)²`` (``none``); without weights w is 1, and Σ w the number of elements.

    Args:
        input: predictions, any shape, float32 or float64, on the CPU or CUDA; or bfloat16 or
            float16, computed in float32 and rounded once. Under autocast they are widened to
            float32, or to float64 where one of the arguments is.
        target: the same shape; nothing is broadcast. Dtypes that differ are promoted.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        weight: w, the same shape, or None. One for each row: ``w[:, None].expand(n, k)``.
        size_average: deprecated, with ``reduce``, in favour of ``reduction``, as in torch.
        reduce: see ``size_average``.

    Returns:
        The loss: shape ``()``, or that of ``input`` for ``none``. The mean of nothing is NaN.

    Raises:
        TypeError: an argument is not a tensor, or its dtype none that is promoted to one of these.
        ValueError: the shapes differ, a tensor is on another device, or ``reduction`` is unknown.

    Example:
        >>> prediction = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> loss = gdcore.functional.mse_loss(prediction, torch.tensor([2.0, 2.0, 5.0]))
        >>> loss.backward()
        >>> loss.item(), prediction.grad.tolist()
        (1.6666666269302368, [-0.6666666865348816, 0.0, -1.3333333730697632])

    Reference:
        ``torch.nn.functional.mse_loss``.
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_get_string(size_average, reduce)
    if weight is None:
        return _autograd.apply(_losses.MSE, reduction, input, target)
    return _autograd.apply(_losses.MSE, reduction, input, target, weight)


def linear_mse_loss(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    reduction: str = "mean",
    loss_weight: Tensor | None = None,
) -> Tensor:
    """Squared error of a linear model, and all its gradients, in one pass over ``x``.

    ``loss = Σ w (x weightᵀ + bias - target)² / Σ w`` (``mean``), without the division (``sum``), or
    every term (``none``); without weights w is 1, and Σ w is n k. The (n, k) prediction is never
    stored, but for ``none`` and, on CUDA, where wide rows or many outputs are matrix products.

    Args:
        x: features, shape ``(n, d)``, float32 or float64, any strides; or bfloat16 or float16,
            computed in float32 and rounded once. Under autocast all are widened to float32, the
            prediction too, which ``torch.nn.functional.linear`` would round to the narrower dtype.
        weight: shape ``(k, d)``, as ``torch.nn.Linear`` stores it.
        bias: shape ``(k,)``, or None.
        target: shape ``(n, k)``, does not require grad where gradients are recorded. If its dtype
            differs from the others', or that of ``loss_weight``, all are promoted.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        loss_weight: w, what `mse_loss` calls ``weight``, a name that is the model's here; shape
            ``(n, k)``, or None. One for each row: ``w[:, None].expand(n, k)``.

    Returns:
        The loss, shape ``()``, or ``(n, k)`` for ``none``, differentiable in ``x``, ``weight`` and
        ``bias``.

    Raises:
        TypeError: an argument is not a tensor, or its dtype none that is promoted to one of these;
            or those that make the prediction differ.
        ValueError: a shape does not fit, a tensor is on another device, ``target`` requires grad,
            or ``reduction`` is unknown.

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
    if loss_weight is None:
        return _autograd.apply(_losses.LINEAR_MSE, reduction, x, weight, bias, target)
    return _autograd.apply(_losses.LINEAR_MSE, reduction, x, weight, bias, target, loss_weight)


def polynomial_mse_loss(
    x: Tensor,
    coefficients: Tensor,
    target: Tensor,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Squared error of a polynomial, and its gradient, in one pass over ``x``.

    ``loss = Σᵢ wᵢ (Σₘ coefficients[m] xᵢᵐ - targetᵢ)² / Σᵢ wᵢ`` (``mean``), without the division
    (``sum``), or every term (``none``); without weights wᵢ is 1, and their sum n. The powers of
    ``x`` are formed in registers and never stored.

    Args:
        x: points, shape ``(n,)``, float32 or float64, does not require grad; or bfloat16 or
            float16, computed in float32 and rounded once. Under autocast all are widened to
            float32.
        coefficients: ascending powers, shape ``(degree + 1,)``, degree 0 to 16.
        target: shape ``(n,)``, does not require grad where gradients are recorded. If its dtype
            differs from the others', or that of ``weight``, all are promoted.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        weight: w, shape ``(n,)``, or None.

    Returns:
        The loss, shape ``()``, or ``(n,)`` for ``none``, differentiable in ``coefficients``.

    Raises:
        TypeError: an argument is not a tensor, or its dtype none that is promoted to one of these;
            or those that make the prediction differ.
        ValueError: a shape does not fit, a tensor is on another device, ``x`` or ``target``
            requires grad, or ``reduction`` is unknown.

    Example:
        >>> x = torch.tensor([-1.0, 0.0, 2.0])
        >>> c = torch.tensor([1.0, 0.0, 1.0], requires_grad=True)  # 1 + x²
        >>> gdcore.functional.polynomial_mse_loss(x, c, torch.zeros(3), reduction="sum").item()
        30.0

    Reference:
        Horner's rule: Knuth, The Art of Computer Programming 2, 4.6.4.
    """
    if weight is None:
        return _autograd.apply(_losses.POLYNOMIAL_MSE, reduction, x, coefficients, target)
    return _autograd.apply(_losses.POLYNOMIAL_MSE, reduction, x, coefficients, target, weight)


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

    ``loss = Σᵢ (a + b P₃(c + d xᵢ) - targetᵢ)² / n`` (``mean``), without the division (``sum``), or
    every square (``none``), with ``P₃(u) = (5u³ - 3u) / 2``.

    Args:
        x: points, shape ``(n,)``, float32 or float64, does not require grad; or bfloat16 or
            float16, computed in float32 and rounded once. Under autocast all are widened to
            float32.
        a: offset, one value.
        b: scale, one value.
        c: offset of the argument, one value.
        d: scale of the argument, one value.
        target: shape ``(n,)``, does not require grad where gradients are recorded. If its dtype
            differs from the others', all are promoted.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        The loss, shape ``()``, or ``(n,)`` for ``none``, differentiable in ``a``, ``b``, ``c`` and
        ``d``.

    Raises:
        TypeError: an argument is not a tensor, or its dtype none that is promoted to one of these;
            or those that make the prediction differ.
        ValueError: a shape does not fit, a tensor is on another device, ``x`` or ``target``
            requires grad, or ``reduction`` is unknown.

    Example:
        >>> x = torch.tensor([0.0, 1.0, 2.0])
        >>> a, b, c, d = torch.tensor([0.0, 1.0, 0.0, 1.0])
        >>> gdcore.functional.legendre_mse_loss(x, a, b, c, d, torch.zeros(3), "sum").item()
        290.0

    Reference:
        "Learning PyTorch with examples", the custom ``autograd.Function``.
    """
    return _autograd.apply(_losses.LEGENDRE_MSE, reduction, x, a, b, c, d, target)


def legendre_p3(x: Tensor) -> Tensor:
    """The Legendre polynomial of degree three, elementwise: ``P₃(x) = (5x³ - 3x) / 2``.

    Args:
        x: any shape, float32 or float64, on the CPU or CUDA; or bfloat16 or float16, computed in
            float32.

    Returns:
        ``P₃(x)``, the shape of ``x``; its derivative is ``P₃′(x) = 3 (5x² - 1) / 2``.

    Raises:
        TypeError: ``x`` is not a tensor of one of these dtypes.
        ValueError: ``x`` is on another device.

    Example:
        >>> gdcore.functional.legendre_p3(torch.tensor([1.0, 2.0]))
        tensor([ 1., 17.])

    Reference:
        Abramowitz and Stegun, Handbook of Mathematical Functions, table 22.9.
    """
    return _losses.legendre_p3(x)
