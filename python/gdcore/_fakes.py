"""What the ops' results look like: to a fake tensor, after the checks of the native calls.

The losses of models make their results natively. One that is not wanted is None, and for the
dispatcher, which wants a tensor, an empty one. `empty_like` takes a third of the time of `empty`
with a shape.
"""

import torch
from torch import Tensor

from . import _checks

SCALARS = {
    dtype: torch.empty((), dtype=dtype, device="cpu") for dtype in (torch.float32, torch.float64)
}


def like(tensor: Tensor) -> Tensor:
    try:
        if tensor.is_contiguous():
            return torch.empty_like(tensor)
    except RuntimeError:  # sparse: the native check refuses it
        pass
    if tensor.layout is not torch.strided:
        return torch.empty_like(tensor)
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def scalar(tensor: Tensor) -> Tensor:
    pattern = SCALARS.get(tensor.dtype)
    if pattern is None or type(tensor) not in _checks.PLAIN:
        return torch.empty((), dtype=tensor.dtype, device=tensor.device)
    return torch.empty_like(pattern)


def mse_results(input: Tensor, reduction: str, gradient: bool) -> tuple[Tensor, Tensor | None]:
    loss = like(input) if reduction == "none" else scalar(input)
    return loss, like(input) if gradient else None


def mse(
    input: Tensor, target: Tensor, reduction: str, gradient: bool, weight: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    _checks.native_dtype(input=input, target=target, weight=weight)
    _checks.mse(input, target, weight)
    return mse_results(input, reduction, gradient)


def linear_mse(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    reduction: str,
    dx: bool,
    loss_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    _checks.native_dtype(x=x, target=target, weight=weight, bias=bias, loss_weight=loss_weight)
    _checks.linear_mse(x, weight, bias, target, loss_weight)
    of_bias = None if bias is None else like(bias)
    return scalar(x), like(weight), of_bias, like(x) if dx else None


def polynomial_mse(
    x: Tensor,
    coefficients: Tensor,
    target: Tensor,
    reduction: str,
    weight: Tensor | None = None,
    *,
    max_degree: int,
) -> tuple[Tensor, Tensor]:
    _checks.native_dtype(x=x, target=target, coefficients=coefficients, weight=weight)
    _checks.polynomial_mse(x, coefficients, target, weight, max_degree=max_degree)
    return scalar(x), like(coefficients)


def legendre_mse(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    target: Tensor,
    reduction: str,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    _checks.native_dtype(x=x, target=target, a=a, b=b, c=c, d=d, weight=weight)
    _checks.legendre_mse(x, a, b, c, d, target, weight)
    return scalar(x), like(a), like(b), like(c), like(d)


def legendre_p3(x: Tensor) -> Tensor:
    _checks.native_dtype(x=x)
    return like(x)


def legendre_p3_backward(grad: Tensor, x: Tensor) -> Tensor:
    _checks.native_dtype(x=x, grad=grad)
    return like(x)
