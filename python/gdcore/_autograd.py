"""The native losses under autograd.

Each loss computes its value and its gradients together, in the forward; the backward only scales
them. Gradients of gradients are autograd's, through the formulas in `gdcore.reference`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _ops, reference

_Computed = tuple[Tensor, tuple[Tensor | None, ...]]


class FusedLoss(torch.autograd.Function):
    """What the losses share: the forward computes gradients too, and the backward scales them.

    A loss defines ``formula``, itself in PyTorch's own functions, and ``compute``, its value with a
    gradient, or None, for each of its inputs.
    """

    formula: Callable[..., Tensor]
    compute: Callable[..., _Computed]

    @staticmethod
    def keep(ctx: Any, loss: type["FusedLoss"], reduction: str, *inputs: Tensor | None) -> Tensor:
        value, ctx.gradients = loss.compute(reduction, ctx.needs_input_grad, *inputs)
        ctx.save_for_backward(*inputs)
        ctx.loss, ctx.reduction = loss, reduction
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors  # an error where they have changed or gone since
        needs = ctx.needs_input_grad
        gradients = ctx.gradients
        if torch.is_grad_enabled():
            # This backward is itself being differentiated: let autograd see the formula.
            # Views, so that each input stands for itself where one is computed from another.
            own: list[Any] = [t if t is None else t.view_as(t) for t in inputs]
            value = ctx.loss.formula(*own, ctx.reduction)
            wanted = [tensor for tensor, need in zip(own, needs, strict=False) if need]
            found = iter(torch.autograd.grad(value, wanted, grad, create_graph=True))
            return (*[next(found) if need else None for need in needs[:-1]], None)
        # Kept no longer than this: a loss that lives on does not hold them, and a second backward,
        # which is rare, computes them again.
        ctx.gradients = None
        if gradients is None:
            _, gradients = ctx.loss.compute(ctx.reduction, needs, *inputs)
        if _ops.is_one(grad):
            # The usual end of a graph. Given away, they become `.grad` without a copy.
            return (*gradients, None)
        return (*[None if g is None else g * grad for g in gradients], None)


class Mse(FusedLoss):
    formula = staticmethod(reference.mse_loss)

    @staticmethod
    def compute(reduction: str, needs: Sequence[bool], input: Tensor, target: Tensor) -> _Computed:
        mse = _ops.implementation("mse", input, target)
        loss, gradient = mse(input, target, reduction, needs[0] or needs[1])
        return loss, (gradient if needs[0] else None, -gradient if needs[1] else None)

    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, reduction: str) -> Tensor:
        return FusedLoss.keep(ctx, Mse, reduction, input, target)


class LinearMse(FusedLoss):
    formula = staticmethod(reference.linear_mse_loss)

    @staticmethod
    def compute(
        reduction: str,
        needs: Sequence[bool],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
    ) -> _Computed:
        linear_mse = _ops.implementation("linear_mse", x, weight, bias, target)
        loss, dweight, dbias, dx = linear_mse(x, weight, bias, target, reduction, needs[0])
        return loss, (
            dx if needs[0] else None,
            dweight if needs[1] else None,
            dbias if needs[2] else None,
            None,
        )

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, reduction: str
    ) -> Tensor:
        return FusedLoss.keep(ctx, LinearMse, reduction, x, weight, bias, target)


class PolynomialMse(FusedLoss):
    formula = staticmethod(reference.polynomial_mse_loss)

    @staticmethod
    def compute(
        reduction: str, needs: Sequence[bool], x: Tensor, coefficients: Tensor, target: Tensor
    ) -> _Computed:
        polynomial_mse = _ops.implementation("polynomial_mse", x, coefficients, target)
        loss, gradient = polynomial_mse(x, coefficients, target, reduction)
        return loss, (None, gradient if needs[1] else None, None)

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, coefficients: Tensor, target: Tensor, reduction: str
    ) -> Tensor:
        return FusedLoss.keep(ctx, PolynomialMse, reduction, x, coefficients, target)


class LegendreMse(FusedLoss):
    formula = staticmethod(reference.legendre_mse_loss)

    @staticmethod
    def compute(reduction: str, needs: Sequence[bool], *inputs: Tensor) -> _Computed:
        legendre_mse = _ops.implementation("legendre_mse", *inputs)
        loss, *slopes = legendre_mse(*inputs, reduction)
        wanted = zip(slopes, needs[1:5], strict=True)
        return loss, (None, *(slope if wants else None for slope, wants in wanted), None)

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        d: Tensor,
        target: Tensor,
        reduction: str,
    ) -> Tensor:
        return FusedLoss.keep(ctx, LegendreMse, reduction, x, a, b, c, d, target)


class LegendreP3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _ops.implementation("legendre_p3", x)(x)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return grad * reference.legendre_p3_derivative(x)
        backward = _ops.implementation("legendre_p3_backward", grad, x)
        return backward(grad, x)  # type: ignore[no-any-return]
