"""The losses: what each asks of its inputs, its formula, and its native value with gradients."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _checks, _modes, _ops, reference
from ._autograd import NONE, Computed, FusedLoss, Loss, apply


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
        native: bool,
        reduction: str,
        needs: Sequence[bool],
        input: Tensor,
        target: Tensor,
        *weight: Tensor,
    ) -> Computed:
        mse = _ops.implementation("mse", native)
        loss, gradient = mse(input, target, reduction, needs[0] or needs[1], *weight)
        return loss, (
            gradient if needs[0] else None,
            -gradient if needs[1] else None,
            *NONE[: len(weight)],
        )

    @staticmethod
    def forward(
        ctx: Any,
        native: bool,
        reduction: str,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        # Not `*inputs`: where no input requires grad, TorchDynamo would count them wrongly.
        inputs = (input, target) if weight is None else (input, target, weight)
        return FusedLoss.keep(ctx, Mse, native, reduction, inputs)


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
        native: bool,
        reduction: str,
        needs: Sequence[bool],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        *loss_weight: Tensor,
    ) -> Computed:
        linear_mse = _ops.implementation("linear_mse", native)
        loss, dweight, dbias, dx = linear_mse(
            x, weight, bias, target, reduction, needs[0], *loss_weight
        )
        return loss, (
            dx if needs[0] else None,
            dweight if needs[1] else None,
            dbias if needs[2] else None,
            None,
            *NONE[: len(loss_weight)],
        )

    @staticmethod
    def forward(ctx: Any, native: bool, reduction: str, *inputs: Tensor | None) -> Tensor:
        return FusedLoss.keep(ctx, LinearMse, native, reduction, inputs)


LINEAR_MSE = Loss(LinearMse, ("target",))


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
        native: bool,
        reduction: str,
        needs: Sequence[bool],
        x: Tensor,
        coefficients: Tensor,
        target: Tensor,
        *weight: Tensor,
    ) -> Computed:
        polynomial_mse = _ops.implementation("polynomial_mse", native)
        loss, gradient = polynomial_mse(x, coefficients, target, reduction, *weight)
        return loss, (None, gradient if needs[1] else None, None, *NONE[: len(weight)])

    @staticmethod
    def forward(ctx: Any, native: bool, reduction: str, *inputs: Tensor) -> Tensor:
        return FusedLoss.keep(ctx, PolynomialMse, native, reduction, inputs)


POLYNOMIAL_MSE = Loss(PolynomialMse, ("x", "target"))


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
    def compute(native: bool, reduction: str, needs: Sequence[bool], *inputs: Tensor) -> Computed:
        legendre_mse = _ops.implementation("legendre_mse", native)
        loss, *slopes = legendre_mse(*inputs, reduction)
        wanted = zip(slopes, needs[1:5], strict=True)
        return loss, (None, *(slope if wants else None for slope, wants in wanted), None)

    @staticmethod
    def forward(ctx: Any, native: bool, reduction: str, *inputs: Tensor) -> Tensor:
        return FusedLoss.keep(ctx, LegendreMse, native, reduction, inputs)


LEGENDRE_MSE = Loss(LegendreMse, ("x", "target"))


class LegendreP3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, native: bool, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _ops.implementation("legendre_p3", native)(x)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled() or not (torch.compiler.is_compiling() or _modes.in_memory(grad)):
            return None, grad * reference.legendre_p3_derivative(_checks.widened(x))
        native = not _modes.traced() and _ops.plain((grad, x))
        return None, _ops.implementation("legendre_p3_backward", native)(grad, x)


def legendre_p3(x: Tensor) -> Tensor:
    """`LegendreP3` where it can be applied, as `apply` does with the losses."""
    if not torch.compiler.is_compiling() and _ops.plain((x,)) and not _modes.watched():
        return LegendreP3.apply(True, x)  # type: ignore[no-untyped-call,no-any-return]
    _checks.tensors(("x",), (x,))
    dtype = _checks.any_dtype(("x",), (x,))
    if dtype not in _checks.NATIVE and not _ops.reads_halves(x):
        return legendre_p3(x.float()).to(dtype)
    if torch.compiler.is_exporting() or _modes.transformed():
        return reference.legendre_p3(x)
    return LegendreP3.apply(False, x)  # type: ignore[no-untyped-call,no-any-return]
