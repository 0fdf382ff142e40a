"""What data native code takes as they are, and which others torch's operations train with."""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from .. import _checks, _modes
from .._recognition.models import NativeModel, recognise_model
from .._seen import Look

__all__ = ["NotPlainError", "check_native", "is_stacked", "trains_eagerly"]


class NotPlainError(ValueError):
    """Data that torch's operations take and native code does not."""


def check_native(x: Any, y: Any) -> None:
    """What native code can only take in plain memory.

    Raises:
        TypeError: something that nothing can be trained with.
        NotPlainError: something that can, eagerly.
    """
    for name, tensor in (("x", x), ("y", y)):
        if isinstance(tensor, tuple):
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
        if isinstance(tensor, FakeTensor):
            raise TypeError(f"{name}: expected a plain tensor, got a FakeTensor")
        if type(tensor) not in _checks.PLAIN:
            raise NotPlainError(f"{name}: expected a plain tensor, got a {type(tensor).__name__}")
        if tensor.requires_grad:
            raise NotPlainError(
                f"{name}: expected a tensor that does not require grad, got one that does; "
                f"use {name}.detach()"
            )
        if tensor.is_neg():
            raise NotPlainError(
                f"{name}: expected plain memory, got a lazy negation; use {name}.resolve_neg()"
            )
    if isinstance(x, Tensor) and x.layout is not torch.strided:
        raise NotPlainError(f"x: expected a dense tensor with storage, got {x.layout}")
    if torch.is_autocast_enabled(_modes.autocast_device(y)):
        raise NotPlainError("autocast: expected it to be off in a native step, got it on")


def is_stacked(native: NativeModel, x: Any, *, in_batches: bool = False) -> bool:
    """Rows in several dimensions, or a row that is a vector: what Linear takes, not its kernel."""
    features = native.parameters[0].shape[1] if native.kernel == "linear" else None
    if not isinstance(x, Tensor) or x.dim() == 0 or x.shape[-1] != features:
        return False
    return x.dim() > 2 or (x.dim() == 1 and not in_batches)


def trains_eagerly(model: Any, x: Any, y: Any) -> bool:
    """Whether data that a native step refuses are good for torch's operations."""
    try:
        check_native(x, y)
    except NotPlainError:
        return True
    try:
        return is_stacked(recognise_model(model, Look()), x)
    except TypeError:
        return False
