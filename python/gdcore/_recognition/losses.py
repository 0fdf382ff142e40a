"""Recognising losses that are the mean or the sum of squared errors, however they are written."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import functional, nn
from .reach import Reach, hindrance_in
from .trace import RefusedError, Tracer
from .watcher import Watcher

__all__ = ["NotSquaredError", "SquaredError", "squared_error", "squared_error_on"]

LossFunction = torch.nn.Module | Callable[[Tensor, Tensor], Tensor]

_KNOWN = (F.mse_loss, functional.mse_loss)
_FORWARDS = {kind: kind.forward for kind in (torch.nn.MSELoss, nn.MSELoss)}
_PARTS = """
    sub rsub add neg mul pow mean sum div abs mse_loss dot mv mm bmm inner alias clone expand view
    _unsafe_view reshape _reshape_alias squeeze unsqueeze t transpose permute ones_like zeros_like
    scalar_tensor lift_fresh detach add_ sub_ mul_ div_ pow_ neg_ gdcore::mse
"""
_OPERATIONS = frozenset(_PARTS.split())
"""What a squared error may be made of: nothing that treats some values in another way."""

_SHAPES = ((1,), (5,), (4, 1), (3, 2), (7, 3))
_LAMBDA = 8.0
_ROUNDINGS = 8
"""In an element of the gradient, 2 (prediction - target) / n: of n, a quotient and a product in the
formula, and of the same and a few more factors in a loss. Each is of half an epsilon.
"""


class SquaredError(NamedTuple):
    """Σ (prediction - target)², divided by the number of elements where it is a mean."""

    mean: bool


class NotSquaredError(NamedTuple):
    """Why a loss is not known to be one, and the line that makes it so."""

    reason: str
    where: str | None = None


def squared_error(
    loss_fn: LossFunction,
    shapes: Sequence[Sequence[int]] = _SHAPES,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> SquaredError | NotSquaredError:
    """Whether a loss is Σ (prediction - target)², or its mean.

    The losses of PyTorch and gdcore are known by name. Any other function is called with random
    predictions and targets: watched as `gdcore.affine.affine_form` watches a model, its operations
    among those that squared errors are made of, its values and gradients those of the formula, for
    residuals from 1e-6 to 1e6.

    Args:
        loss_fn: called as ``loss_fn(prediction, target)``.
        shapes: the shapes of prediction and target that it will be used with: a function may
            divide by a number of its own.
        dtype: of prediction and target.
        device: theirs.

    Returns:
        Which of the two it is, or the reason why it is neither.

    Example:
        >>> from gdcore._recognition.losses import squared_error
        >>> squared_error(lambda h, y: torch.mean((h - y) ** 2))
        SquaredError(mean=True)
        >>> squared_error(lambda h, y: (h - y).abs().sum()).reason
        'its values are not those of a squared error'
    """
    known = _by_name(loss_fn)
    if known is not None:
        return known
    if not callable(loss_fn):
        return NotSquaredError(f"a {type(loss_fn).__name__} cannot be called")
    reach = Reach(loss_fn)
    hindrance = reach.hindrance()
    if hindrance is not None:
        return NotSquaredError(f"{hindrance}, which the native loop would not run")
    random = torch.Generator(device).manual_seed(0)
    kinds = {True, False}
    try:
        with torch.enable_grad():
            for shape in shapes:
                for wide in (False, True):
                    pair = _residuals(tuple(shape), wide, dtype, random)
                    found = _watched(loss_fn, *pair, reach)
                    if isinstance(found, NotSquaredError):
                        return found
                    kinds &= {mean for mean in kinds if _agrees(found, *pair, mean)}
                    if not kinds:
                        return NotSquaredError("its values are not those of a squared error")
    finally:
        reach.restore()
    return SquaredError(max(kinds))


def squared_error_on(
    loss_fn: LossFunction, y: Tensor, batch_size: int | None = None
) -> SquaredError | NotSquaredError:
    """The same for the shapes that targets will have: all rows, or whole and last batches."""
    known = _by_name(loss_fn)
    if known is not None:
        return known
    if batch_size is None:
        counts = {y.shape[0]} if y.dim() else set()
    else:
        counts = {batch_size, y.shape[0] % batch_size} - {0}
    shapes = [(count, *y.shape[1:]) for count in sorted(counts)] or [()]
    dtype = y.dtype if y.is_floating_point() else torch.float32
    return squared_error(loss_fn, shapes, dtype, y.device)


def _by_name(loss_fn: Any) -> SquaredError | NotSquaredError | None:
    reduction: Any = None
    if any(loss_fn is known for known in _KNOWN):
        return SquaredError(True)
    if isinstance(loss_fn, functools.partial):
        plain = not loss_fn.args and set(loss_fn.keywords) <= {"reduction"}
        if not plain or not any(loss_fn.func is known for known in _KNOWN):
            return None
        reduction = loss_fn.keywords.get("reduction", "mean")
    else:
        own = _FORWARDS.get(type(loss_fn))
        if own is None or type(loss_fn).forward is not own or "forward" in loss_fn.__dict__:
            return None
        hindrance = hindrance_in([loss_fn])
        if hindrance is not None:
            return NotSquaredError(f"{hindrance}, which the native loop would not run")
        reduction = loss_fn.reduction
    if reduction not in ("mean", "sum"):
        return NotSquaredError(f"its reduction is {reduction!r}, neither mean nor sum")
    return SquaredError(bool(reduction == "mean"))


def _residuals(
    shape: tuple[int, ...], wide: bool, dtype: torch.dtype, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A prediction and a target: wide ones differ by 1e-6 to 1e6, so that thresholds show, others
    so little that whatever is added to the squares shows.
    """

    def normal() -> Tensor:
        return torch.randn(shape, generator=random, dtype=dtype, device=random.device)

    prediction, target = normal(), normal()
    if wide:
        prediction *= 10 ** (6 * torch.tanh(2 * normal()))
        target = torch.zeros_like(target)
    else:
        prediction = target + 1e-6 * prediction
    return prediction.requires_grad_(), target


def _watched(
    loss_fn: LossFunction, prediction: Tensor, target: Tensor, reach: Reach
) -> Tensor | NotSquaredError:
    tracer = Tracer([prediction], (), {})
    loss: Any = None
    try:
        with tracer, Watcher(tracer):
            loss = loss_fn(prediction, target)
    except RefusedError:
        pass
    except Exception as error:
        if tracer.refusal is None:
            return NotSquaredError(f"it raises {type(error).__name__}: {error}".splitlines()[0])
    if tracer.refusal is not None:
        return NotSquaredError(*tracer.refusal)
    if tracer.reads:
        return NotSquaredError("Python reads values of the target, or of a constant")
    changed = reach.changed()
    if changed is not None:
        return NotSquaredError(changed)
    strange = sorted(tracer.performed - _OPERATIONS)
    if strange:
        return NotSquaredError(f"{strange[0]} is no part of a squared error")
    if type(loss) is not Tensor or loss.dim() != 0:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        return NotSquaredError(f"it returns {got}, not one number")
    if loss.dtype != prediction.dtype or not loss.requires_grad:
        return NotSquaredError("no gradient of the prediction's dtype flows through it")
    if any(t._backward_hooks for t in tracer.alive):
        return NotSquaredError("a hook on a tensor, which the native loop would not run")
    return loss


def _agrees(loss: Tensor, prediction: Tensor, target: Tensor, mean: bool) -> bool:
    """Value and gradient are the formula's: the value to the rounding of a sum of that many
    squares, but each element of the gradient, which is no sum, to that of a few products.
    """
    residual = prediction.detach() - target
    count = residual.numel() if mean else 1
    eps = torch.finfo(loss.dtype).eps
    tolerance = eps * (_LAMBDA * residual.numel() ** 0.5 + 8)
    expected = residual.double().square().sum() / count
    if not bool((loss.detach() - expected).abs() <= tolerance * expected):
        return False
    (gradient,) = torch.autograd.grad(loss, prediction, retain_graph=True)
    slope = 2 * residual / count
    return bool(((gradient - slope).abs() <= _ROUNDINGS / 2 * eps * slope.abs()).all())
