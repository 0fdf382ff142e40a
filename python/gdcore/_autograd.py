"""The native losses under autograd.

Each loss computes its value and its gradients together, in the forward; the backward only scales
them. Gradients of gradients, forward mode and ``torch.func`` are autograd's own, through the
formulas in `gdcore.reference`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _checks, _ops, reference

_Inputs: TypeAlias = tuple[Tensor | None, ...]
_Computed: TypeAlias = tuple[Tensor, _Inputs]

_NONE = (None,)  # the gradient of weights
_NO_NEEDS = (False,) * 7  # the reduction and at most six inputs


class FusedLoss(torch.autograd.Function):
    """What the losses share: the forward computes gradients too, and the backward scales them.

    A loss defines ``names``, those of its inputs; ``check``, what it asks of their shapes;
    ``formula``, itself in PyTorch's own functions; and ``compute``, its value with a gradient, or
    None, for each of its inputs. A model's loss defines ``elementwise`` too, by which it is not
    reduced.
    """

    names: tuple[str, ...]
    check: Callable[..., None]
    formula: Callable[..., Tensor]
    compute: Callable[..., _Computed]
    elementwise: Callable[..., Tensor]

    @staticmethod
    def keep(ctx: Any, loss: type["FusedLoss"], reduction: str, inputs: _Inputs) -> Tensor:
        # TorchDynamo leaves it away where nothing requires grad.
        needs = getattr(ctx, "needs_input_grad", _NO_NEEDS)[1:]
        value, ctx.gradients = loss.compute(reduction, needs, *inputs)
        ctx.save_for_backward(*inputs)
        ctx.loss, ctx.reduction = loss, reduction
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors  # an error where they have changed or gone since
        needs = ctx.needs_input_grad[1:]
        gradients = ctx.gradients
        if torch.is_grad_enabled():
            # This backward is itself being differentiated: let autograd see the formula.
            return (None, *_differentiate(ctx.loss, ctx.reduction, inputs, needs, grad))
        # Kept no longer than this: a loss that lives on does not hold them, and a second backward,
        # which is rare, computes them again.
        ctx.gradients = None
        if gradients is None:
            _, gradients = ctx.loss.compute(ctx.reduction, needs, *inputs)
        if _ops.is_one(grad):
            # The usual end of a graph. Given away, they become `.grad` without a copy.
            return (None, *gradients)
        return (None, *[None if g is None else g * grad for g in gradients])


def _differentiate(
    loss: type[FusedLoss], reduction: str, inputs: _Inputs, needs: Sequence[bool], grad: Tensor
) -> list[Tensor | None]:
    """The gradients as autograd finds them, with a graph."""
    # Views, so that each input stands for itself where one of them is computed from another.
    own = [
        tensor.view_as(tensor) if tensor is not None and need else tensor
        for tensor, need in zip(inputs, needs, strict=True)
    ]
    with torch.autocast(_ops.autocast_device(inputs[0]), enabled=False):
        value = loss.formula(reduction, *own)
        wanted = [t for t, need in zip(own, needs, strict=True) if need and t is not None]
        found = iter(torch.autograd.grad(value, wanted, grad, create_graph=True))
    return [next(found) if need else None for _, need in zip(own, needs, strict=True)]


class Loss:
    """A loss outside of its Function, into which TorchDynamo does not look."""

    def __init__(self, function: type[FusedLoss]) -> None:
        self.function = function
        self.names = function.names
        self.check = function.check
        self.formula = function.formula
        self.elementwise = getattr(function, "elementwise", None)
        self.first_weight = function.names.index("target") + 1


def apply(loss: Loss, reduction: str, *inputs: Tensor | None) -> Tensor:
    """The loss natively where it can be; `apply_with_care` sees to what stands in the way."""
    first = inputs[0]
    if (
        first is None
        or first.dtype not in _checks.NATIVE
        or (reduction == "none" and loss.elementwise is not None)
        or torch.is_autocast_enabled(_ops.autocast_device(first))
        or _ops.transformed()
    ):
        return apply_with_care(loss, reduction, inputs)
    return loss.function.apply(reduction, *inputs)  # type: ignore[no-untyped-call,no-any-return]


def apply_weighted(loss: Loss, reduction: str, *inputs: Tensor | None) -> Tensor:
    """`apply`, the last of the inputs being weights."""
    weight = inputs[-1]
    if weight is not None and weight.requires_grad:
        return apply_with_care(loss, reduction, inputs)
    return apply(loss, reduction, *inputs)


def apply_with_care(loss: Loss, reduction: str, inputs: _Inputs) -> Tensor:
    device = _ops.autocast_device(inputs[0])
    if torch.is_autocast_enabled(device):
        # Every loss is on the list of what autocast runs in float32.
        with torch.autocast(device, enabled=False):
            return apply_with_care(loss, reduction, tuple(map(_checks.widened, inputs)))
    dtype = _checks.any_dtype(loss.names, inputs)
    if dtype not in _checks.NATIVE:
        # Stored as it is, computed in float32, rounded once.
        wide = tuple(map(_checks.widened, inputs))
        return apply_with_care(loss, reduction, wide).to(dtype)
    loss.check(*inputs)
    weights = inputs[loss.first_weight :]
    if _ops.transformed() or any(w is not None and w.requires_grad for w in weights):
        return loss.formula(reduction, *inputs)
    if reduction == "none" and loss.elementwise is not None:
        return loss.elementwise(*inputs)  # type: ignore[no-any-return]
    return loss.function.apply(reduction, *inputs)  # type: ignore[no-untyped-call,no-any-return]


class Mse(FusedLoss):
    names = ("input", "target", "weight")
    check = staticmethod(_checks.mse)

    @staticmethod
    def formula(
        reduction: str, input: Tensor, target: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        return reference.mse_loss(input, target, reduction, weight)

    @staticmethod
    def compute(
        reduction: str, needs: Sequence[bool], input: Tensor, target: Tensor, *weight: Tensor
    ) -> _Computed:
        mse = _ops.implementation("mse", input, target, *weight)
        loss, gradient = mse(input, target, reduction, needs[0] or needs[1], *weight)
        return loss, (
            gradient if needs[0] else None,
            -gradient if needs[1] else None,
            *_NONE[: len(weight)],
        )

    @staticmethod
    def forward(
        ctx: Any, reduction: str, input: Tensor, target: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        # Not `*inputs`: where no input requires grad, TorchDynamo would count them wrongly.
        inputs = (input, target) if weight is None else (input, target, weight)
        return FusedLoss.keep(ctx, Mse, reduction, inputs)


MSE = Loss(Mse)


class LinearMse(FusedLoss):
    names = ("x", "weight", "bias", "target", "loss_weight")
    check = staticmethod(_checks.linear_mse)

    @staticmethod
    def formula(
        reduction: str,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        loss_weight: Tensor | None = None,
    ) -> Tensor:
        return reference.linear_mse_loss(x, weight, bias, target, reduction, loss_weight)

    @staticmethod
    def elementwise(
        x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, *loss_weight: Tensor
    ) -> Tensor:
        return apply(MSE, "none", F.linear(x, weight, bias), target, *loss_weight)

    @staticmethod
    def compute(
        reduction: str,
        needs: Sequence[bool],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        *loss_weight: Tensor,
    ) -> _Computed:
        linear_mse = _ops.implementation("linear_mse", x, weight, bias, target, *loss_weight)
        loss, dweight, dbias, dx = linear_mse(
            x, weight, bias, target, reduction, needs[0], *loss_weight
        )
        return loss, (
            dx if needs[0] else None,
            dweight if needs[1] else None,
            dbias if needs[2] else None,
            None,
            *_NONE[: len(loss_weight)],
        )

    @staticmethod
    def forward(ctx: Any, reduction: str, *inputs: Tensor | None) -> Tensor:
        return FusedLoss.keep(ctx, LinearMse, reduction, inputs)


LINEAR_MSE = Loss(LinearMse)


class PolynomialMse(FusedLoss):
    names = ("x", "coefficients", "target", "weight")
    check = staticmethod(functools.partial(_checks.polynomial_mse, max_degree=_ops.MAX_DEGREE))

    @staticmethod
    def formula(
        reduction: str,
        x: Tensor,
        coefficients: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        return reference.polynomial_mse_loss(x, coefficients, target, reduction, weight)

    @staticmethod
    def elementwise(x: Tensor, coefficients: Tensor, target: Tensor, *weight: Tensor) -> Tensor:
        return apply(MSE, "none", reference.polynomial(x, coefficients), target, *weight)

    @staticmethod
    def compute(
        reduction: str,
        needs: Sequence[bool],
        x: Tensor,
        coefficients: Tensor,
        target: Tensor,
        *weight: Tensor,
    ) -> _Computed:
        polynomial_mse = _ops.implementation("polynomial_mse", x, coefficients, target, *weight)
        loss, gradient = polynomial_mse(x, coefficients, target, reduction, *weight)
        return loss, (None, gradient if needs[1] else None, None, *_NONE[: len(weight)])

    @staticmethod
    def forward(ctx: Any, reduction: str, *inputs: Tensor) -> Tensor:
        return FusedLoss.keep(ctx, PolynomialMse, reduction, inputs)


POLYNOMIAL_MSE = Loss(PolynomialMse)


class LegendreMse(FusedLoss):
    names = ("x", "a", "b", "c", "d", "target")
    check = staticmethod(_checks.legendre_mse)

    @staticmethod
    def formula(reduction: str, *inputs: Tensor) -> Tensor:
        *model, target = inputs
        return reference.mse_loss(reference.legendre(*model), target, reduction)

    @staticmethod
    def elementwise(*inputs: Tensor) -> Tensor:
        *model, target = inputs
        return apply(MSE, "none", reference.legendre(*model), target)

    @staticmethod
    def compute(reduction: str, needs: Sequence[bool], *inputs: Tensor) -> _Computed:
        legendre_mse = _ops.implementation("legendre_mse", *inputs)
        loss, *slopes = legendre_mse(*inputs, reduction)
        wanted = zip(slopes, needs[1:5], strict=True)
        return loss, (None, *(slope if wants else None for slope, wants in wanted), None)

    @staticmethod
    def forward(ctx: Any, reduction: str, *inputs: Tensor) -> Tensor:
        return FusedLoss.keep(ctx, LegendreMse, reduction, inputs)


LEGENDRE_MSE = Loss(LegendreMse)


class LegendreP3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _ops.implementation("legendre_p3", x)(x)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled() or not _ops.in_memory(grad):
            return grad * reference.legendre_p3_derivative(x)
        backward = _ops.implementation("legendre_p3_backward", grad, x)
        return backward(grad, x)  # type: ignore[no-any-return]


def legendre_p3(x: Tensor) -> Tensor:
    """`LegendreP3` where it can be applied, as `apply` does with the losses."""
    if x.dtype not in _checks.NATIVE or _ops.transformed():
        dtype = _checks.any_dtype(("x",), (x,))
        if dtype not in _checks.NATIVE:
            return legendre_p3(x.float()).to(dtype)
        return reference.legendre_p3(x)
    return LegendreP3.apply(x)  # type: ignore[no-untyped-call,no-any-return]
