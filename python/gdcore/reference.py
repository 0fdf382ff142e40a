"""Every formula of gdcore in plain PyTorch.

The readable statement of what each kernel computes, the oracle of the tests, and what autograd
differentiates when gradients of gradients are asked for. Same names and arguments as
`gdcore.functional`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def reduce(losses: Tensor, reduction: str, weight: Tensor | None = None) -> Tensor:
    """Losses as they are, their mean or their sum; each times its weight, Σ of them the divisor."""
    if weight is not None:
        losses = weight * losses
        if reduction == "mean":
            return losses.sum() / weight.sum()
    if reduction == "none":
        return losses
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    raise ValueError(f"reduction: expected none, mean or sum, got {reduction!r}")


def mse_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", weight: Tensor | None = None
) -> Tensor:
    """``r² with r = input - target``, reduced."""
    return reduce((input - target) ** 2, reduction, weight)


def linear_mse_loss(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    reduction: str = "mean",
    loss_weight: Tensor | None = None,
) -> Tensor:
    """`mse_loss` of ``x @ weight.T + bias``."""
    return mse_loss(F.linear(x, weight, bias), target, reduction, loss_weight)


def polynomial(x: Tensor, coefficients: Tensor) -> Tensor:
    """``coefficients[0] + coefficients[1] x + coefficients[2] x² + …`` by Horner's rule."""
    value = coefficients[-1].expand_as(x)
    for coefficient in coefficients.flip(0)[1:]:
        value = value * x + coefficient
    return value


def polynomial_mse_loss(
    x: Tensor,
    coefficients: Tensor,
    target: Tensor,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """`mse_loss` of `polynomial`."""
    return mse_loss(polynomial(x, coefficients), target, reduction, weight)


def legendre_p3(x: Tensor) -> Tensor:
    """The Legendre polynomial ``P₃(x) = (5x³ - 3x) / 2``."""
    return 0.5 * (5 * x**3 - 3 * x)


def legendre_p3_derivative(x: Tensor) -> Tensor:
    """``P₃′(x) = 3 (5x² - 1) / 2``."""
    return 1.5 * (5 * x**2 - 1)


def legendre(x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """``a + b P₃(c + d x)``."""
    return a + b * legendre_p3(c + d * x)


def legendre_mse_loss(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    target: Tensor,
    reduction: str = "mean",
) -> Tensor:
    """`mse_loss` of `legendre`."""
    return mse_loss(legendre(x, a, b, c, d), target, reduction)


def sgd_update(
    parameter: Tensor,
    grad: Tensor,
    momentum_buffer: Tensor | None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """One update of ``torch.optim.SGD``: the new parameter and the new momentum buffer."""
    grad = -grad if maximize else grad
    grad = grad + weight_decay * parameter
    if momentum != 0:
        if momentum_buffer is None:
            momentum_buffer = torch.clone(grad)
        else:
            momentum_buffer = momentum * momentum_buffer + (1 - dampening) * grad
        grad = grad + momentum * momentum_buffer if nesterov else momentum_buffer
    return parameter - lr * grad, momentum_buffer


def rmsprop_update(
    parameter: Tensor,
    grad: Tensor,
    state: dict[str, Tensor],
    *,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    maximize: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One update of ``torch.optim.RMSprop``: the new parameter and state (empty before the first).

    The state's keys are torch's, without ``step``.
    """
    grad = -grad if maximize else grad
    grad = grad + weight_decay * parameter
    zero = torch.zeros_like(parameter)
    square_avg = alpha * state.get("square_avg", zero) + (1 - alpha) * grad**2
    new, variance = {"square_avg": square_avg}, square_avg
    if centered:
        grad_avg = state.get("grad_avg", zero)
        new["grad_avg"] = grad_avg = grad_avg + (1 - alpha) * (grad - grad_avg)
        variance = square_avg - grad_avg**2
    change = grad / (variance.sqrt() + eps)
    if momentum > 0:
        new["momentum_buffer"] = change = momentum * state.get("momentum_buffer", zero) + change
    return parameter - lr * change, new


def adam_update(
    parameter: Tensor,
    grad: Tensor,
    state: dict[str, Tensor],
    step: int,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    amsgrad: bool = False,
    maximize: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Update number ``step``, from 1, of ``torch.optim.Adam``: the new parameter and state.

    The state is empty before the first; its keys are torch's, without ``step``.
    """
    grad = -grad if maximize else grad
    if decoupled_weight_decay:
        parameter = parameter * (1 - lr * weight_decay)
    else:
        grad = grad + weight_decay * parameter
    zero = torch.zeros_like(parameter)
    first, second = betas
    exp_avg = state.get("exp_avg", zero)
    exp_avg = exp_avg + (1 - first) * (grad - exp_avg)
    exp_avg_sq = second * state.get("exp_avg_sq", zero) + (1 - second) * grad**2
    new, divisor = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}, exp_avg_sq
    if amsgrad:
        divisor = torch.maximum(state.get("max_exp_avg_sq", zero), exp_avg_sq)
        new["max_exp_avg_sq"] = divisor
    denominator = divisor.sqrt() / (1 - second**step) ** 0.5 + eps
    return parameter - lr / (1 - first**step) * exp_avg / denominator, new
