"""What native losses are under autograd.

Each loss computes its value and its gradients together, in the forward; the backward only scales
them. Gradients of gradients, forward mode and ``torch.func`` are autograd's own, through the
formulas in `gdcore.reference`.
"""

import operator
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from . import _checks, _modes, _ops
from ._refusals import as_torch_raises

_Inputs: TypeAlias = tuple[Tensor | None, ...]
Computed: TypeAlias = tuple[Tensor, _Inputs]

NONE = (None,)  # the gradient of weights
_NO_NEEDS = (False,) * 8  # whether natively, the reduction and at most six inputs


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
    compute: Callable[..., Computed]
    elementwise: Callable[..., Tensor]

    @staticmethod
    def keep(
        ctx: Any, loss: type["FusedLoss"], native: bool, reduction: str, inputs: _Inputs
    ) -> Tensor:
        # TorchDynamo leaves it away where nothing requires grad.
        needs = getattr(ctx, "needs_input_grad", _NO_NEEDS)[2:]
        value, ctx.gradients = loss.compute(native, reduction, needs, *inputs)
        ctx.save_for_backward(*inputs)
        ctx.loss, ctx.reduction = loss, reduction
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors  # an error where they have changed or gone since
        if torch.is_grad_enabled():
            # This backward is itself being differentiated: let autograd see the formula.
            needs = ctx.needs_input_grad[2:]
            return (None, None, *_differentiate(ctx.loss, ctx.reduction, inputs, needs, grad))
        gradients = ctx.gradients
        # Kept no longer than this: a loss that lives on does not hold them, and a second backward,
        # which is rare, computes them again.
        ctx.gradients = None
        if gradients is None:
            needs = ctx.needs_input_grad[2:]
            _, gradients = ctx.loss.compute(False, ctx.reduction, needs, *inputs)
        if _ops.is_one(grad):
            # The usual end of a graph. Given away, they become `.grad` without a copy.
            return (None, None, *gradients)
        return (None, None, *[None if g is None else _ops.scaled(g, grad) for g in gradients])


def _differentiate(
    loss: type[FusedLoss], reduction: str, inputs: _Inputs, needs: Sequence[bool], grad: Tensor
) -> list[Tensor | None]:
    """The gradients as autograd finds them, with a graph."""
    # Views, so that each input stands for itself where one of them is computed from another.
    own = [
        tensor.view_as(tensor) if tensor is not None and need else tensor
        for tensor, need in zip(inputs, needs, strict=True)
    ]
    with torch.autocast(_modes.autocast_device(inputs[0]), enabled=False):
        value = loss.formula(reduction, *map(_checks.widened, own)).to(grad.dtype)
        wanted = [t for t, need in zip(own, needs, strict=True) if need and t is not None]
        found = iter(torch.autograd.grad(value, wanted, grad, create_graph=True))
    return [next(found) if need else None for _, need in zip(own, needs, strict=True)]


class Loss:
    """A loss outside of its Function, into which TorchDynamo does not look."""

    def __init__(self, function: type[FusedLoss], constants: tuple[str, ...] = ()) -> None:
        self.function = function
        self.names = function.names
        self.check = function.check
        self.formula = function.formula
        self.elementwise = getattr(function, "elementwise", None)
        self.reductions = _checks.REDUCTIONS if self.elementwise is None else ("mean", "sum")
        self.own = function.names.index("target")  # how many make the prediction
        self.first_weight = self.own + 1
        # Those that may not require grad, and weights, whose gradient only the formula has.
        self.constants = constants
        self.held = self._bits(*constants, *self.names[self.first_weight :])
        self.optional = self._bits("bias")
        # What `Function.apply` comes to where `_modes.watched` says no; it takes 4 µs to find out.
        self.run = super(torch.autograd.Function, function).apply  # type: ignore[misc]

    def _bits(self, *names: str) -> int:
        return sum(1 << self.names.index(name) for name in names if name in self.names)


def apply(loss: Loss, reduction: str, *inputs: Tensor | None) -> Tensor:
    """The loss natively where it can be; `apply_with_care` sees to what stands in the way."""
    try:
        try:
            if (
                not torch.compiler.is_compiling()
                and reduction in loss.reductions
                and _ops.plain(inputs, loss.held, loss.optional)
                and not _modes.watched()
            ):
                return loss.run(True, reduction, *inputs)  # type: ignore[no-any-return]
        except TypeError:
            pass  # refused once more below, in words that know of half types
        return apply_with_care(loss, reduction, inputs)
    except (TypeError, ValueError) as error:
        raise as_torch_raises(error) from error.__cause__


def apply_with_care(loss: Loss, reduction: str, inputs: _Inputs) -> Tensor:
    _checks.reduction_name(reduction)
    _checks.tensors(loss.names, inputs)
    for name in loss.constants:
        _checks.constant(name, inputs[loss.names.index(name)])  # type: ignore[arg-type]
    device = _modes.autocast_device(inputs[0])
    if torch.is_autocast_enabled(device):
        # Every loss is on the list of what autocast runs in float32; what `F.mse_loss` does with
        # weights, a power and a sum, is there on CUDA, and on the CPU it only promotes.
        weighted = loss.names[0] == "input" and inputs[2:] not in ((), (None,))
        if not weighted or device == "cuda":
            inputs = tuple(map(_checks.widened, inputs))
        inputs = _checks.promoted(inputs, loss.own)
        _checks.alike(loss.names, inputs, " under autocast")
        with torch.autocast(device, enabled=False):
            return apply(loss, reduction, *inputs)
    given, inputs = inputs, _checks.promoted(inputs, loss.own)
    if any(map(operator.is_not, given, inputs)):
        return _noticing_changes(apply(loss, reduction, *inputs), given)
    dtype = _checks.any_dtype(loss.names, inputs)
    weights = inputs[loss.first_weight :]
    if dtype not in _checks.NATIVE and not (
        reduction in loss.reductions
        and not any(w is not None and w.requires_grad for w in weights)
        and _ops.reads_halves(inputs[0])  # type: ignore[arg-type]
    ):
        # Stored as it is, computed in float32, rounded once: gradients too, and not before the
        # factor from above, a `GradScaler`'s, say, is in them.
        value = apply(loss, reduction, *map(_checks.widened, inputs)).to(dtype)
        return _noticing_changes(value, inputs)
    loss.check(*inputs)
    # A program that is exported keeps no Function, and may be differentiated all the same.
    exported = torch.compiler.is_exporting()
    if exported or _modes.transformed() or any(w is not None and w.requires_grad for w in weights):
        return loss.formula(reduction, *inputs)
    if reduction == "none" and loss.elementwise is not None:
        return loss.elementwise(*inputs)  # type: ignore[no-any-return]
    if torch.compiler.is_compiling():
        inputs = _told_apart(inputs)
    return loss.function.apply(False, reduction, *inputs)  # type: ignore[no-untyped-call,no-any-return]


def _noticing_changes(value: Tensor, given: _Inputs) -> Tensor:
    """The value, with torch's error in its backward if an input has been changed in place by then.

    What is saved for the backward are the inputs converted, whose versions stay.
    """
    if torch.compiler.is_compiling() or _modes.transformed() or value.grad_fn is None:
        return value
    seen = [
        (weakref.ref(tensor), tensor._version)
        for tensor in given
        if tensor is not None and not tensor.is_inference()
    ]

    def check(_: object) -> None:
        for reference, version in seen:
            tensor = reference()
            if tensor is not None and tensor._version != version:
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an "
                    f"inplace operation: an input {list(tensor.shape)} of a loss is at version "
                    f"{tensor._version}; expected version {version} instead."
                )

    value.grad_fn.register_prehook(check)
    return value


def _told_apart(inputs: _Inputs) -> _Inputs:
    """The same values, none of them twice: TorchDynamo takes no tensor twice in a Function."""
    return tuple(
        tensor.view_as(tensor)
        if tensor is not None and any(tensor is other for other in inputs[:i])
        else tensor
        for i, tensor in enumerate(inputs)
    )
