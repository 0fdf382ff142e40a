"""Which tensors recognition can handle, whatever a model does with them."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["PLAIN", "unsuitable"]

PLAIN = (Tensor, torch.nn.Parameter, torch.nn.Buffer)
_DTYPES = (torch.float32, torch.float64)


def unsuitable(trained: Sequence[Tensor], xs: Sequence[Tensor]) -> str | None:
    """Why they cannot be handled; None where they can."""
    if not trained:
        return "no trained parameter requires grad"
    device, dtype = trained[0].device, trained[0].dtype
    if torch.is_inference_mode_enabled():
        return "inference mode is on"
    if torch.is_autocast_enabled(device.type):
        return "autocast is on"
    for tensor in (*trained, *xs):
        if type(tensor) not in PLAIN:
            return f"a tensor of the subclass {type(tensor).__name__}"
        if tensor.layout is not torch.strided:
            return f"a tensor of layout {tensor.layout}"
        if tensor.device != device:
            return f"tensors on {device} and on {tensor.device}"
    memories = set()
    for parameter in trained:
        if parameter.dtype != dtype or dtype not in _DTYPES:
            return "parameters that are not all float32 or all float64"
        if not parameter.is_leaf:
            return "a parameter that is itself computed from others"
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            return "a hook on a parameter, which the native loop would not run"
        if not _dense(parameter):
            return "a parameter that is a strided view"
        memories.add(parameter.untyped_storage()._cdata)
    if len(memories) != len(trained):
        return "parameters that share memory"
    if any(one.dim() == 0 or one.numel() == 0 for one in xs):
        return "x has no rows"
    if any(parameter.numel() == 0 for parameter in trained):
        return "a parameter without elements"
    return None


def _dense(tensor: Tensor) -> bool:
    """Whether every element has a place of its own, without gaps."""
    if tensor.is_contiguous():
        return True
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.detach().permute(order).is_contiguous()
