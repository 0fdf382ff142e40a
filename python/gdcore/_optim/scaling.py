"""What a ``torch.amp.GradScaler`` leaves to an optimizer with ``fused=True``: to divide by its
scale, and not to step on an overflow.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .._checks import HALF

_Group = dict[str, Any]


def prepared(optimizer: Any) -> tuple[Tensor | None, Tensor | None]:
    """The scale that gradients still have, and whether one of them is not finite, if any."""
    scale, found_inf = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
    if (scale is None and found_inf is None) or "fused" not in optimizer.defaults:
        return None, None
    if not all(group["fused"] for group in optimizer.param_groups):
        raise AssertionError(
            "grad_scale, found_inf: expected None where a group has not fused=True, got "
            f"{scale} and {found_inf}"
        )
    return scale, found_inf


@contextmanager
def unscaled(
    groups: list[_Group], scale: Tensor, overflow: Tensor | None
) -> Iterator[list[_Group]]:
    """The groups with gradients divided by the scale, which are kept if the step is made.

    Those of half types are not yet: small ones would be lost in that width. They come in groups
    that are torch's to update, marked by what the kernels do not take.
    """
    parameters = [p for group in groups for p in group["params"] if p.grad is not None]
    narrow = {id(p) for p in parameters if p.grad.dtype in HALF or p.dtype in HALF}
    grads = [(p, p.grad) for p in parameters if id(p) not in narrow]
    wide: list[_Group] = []
    rest: list[_Group] = []
    for group in groups:
        held = group["params"]
        wide.append({**group, "params": [p for p in held if id(p) not in narrow]})
        theirs = [p for p in held if id(p) in narrow]
        rest.append({**group, "params": theirs, "differentiable": True})
    try:
        for parameter, grad in grads:
            parameter.grad = grad / scale.to(grad.device)
        yield wide + rest  # the first keep their numbers, which errors name
        for parameter, grad in grads:
            kept = parameter.grad
            if overflow is not None:
                kept = torch.where(overflow.to(grad.device) == 0, kept, grad)
            grad.copy_(kept)
    finally:
        for parameter, grad in grads:
            parameter.grad = grad
