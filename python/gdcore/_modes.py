"""What torch does around the calls of a program: tracing, transforms, autocast."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

_is_compiling = torch.compiler.is_compiling
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack
_functorch_active = torch._C._are_functorch_transforms_active
_any_autocast = torch._C._is_any_autocast_enabled


def autocast_device(tensor: Tensor | None) -> str:
    """The device whose autocast concerns a loss of this tensor."""
    return "cuda" if tensor is not None and tensor.is_cuda else "cpu"


def traced() -> bool:
    """Whether torch records, fakes or intercepts what is called."""
    return _is_compiling() or _dispatch_modes() > 0


def defaults_changed() -> bool:
    """Whether a default device may be set, which is a mode that torch's functions are called in."""
    return _function_modes() > 0


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work: tensors may then be wrapped,
    or carry tangents, which no native function sees.
    """
    return _functorch_active() or forward_ad._current_level >= 0


def in_memory(tensor: Tensor) -> bool:
    """Whether all there is to a tensor is in its memory: no batch around it, no tangent."""
    return not transformed() and torch._C._has_storage(tensor)


def watched() -> bool:
    """Whether torch does more to what is called than to call it, autocast on any device included.

    Not for what TorchDynamo looks into, where `torch.compiler.is_compiling` must come first.
    """
    return (
        _dispatch_modes() > 0
        or _any_autocast()
        or _functorch_active()
        or forward_ad._current_level >= 0
    )
