"""Optimizers whose updates run in one native call."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.sgd import sgd as torch_sgd

from . import _ops

__all__ = ["SGD"]

_NATIVE_DTYPES = (torch.float32, torch.float64)


def _is_native(tensor: Tensor) -> bool:
    return (
        tensor.dtype in _NATIVE_DTYPES
        and tensor.is_cpu
        and tensor.layout == torch.strided
        and not tensor.is_neg()  # negated lazily: its memory holds the opposite
    )


class SGD(torch.optim.SGD):
    r"""Stochastic gradient descent with ``torch.optim.SGD``'s arguments, state and numbers.

    ``g ← ±grad + weight_decay p``; ``b ← momentum b + (1 - dampening) g``, or ``g`` at the first
    step; ``g ← g + momentum b`` (Nesterov) or ``b``; ``p ← p - lr g``. All tensors of a group are
    updated in one native call, in place. What the kernels do not take (half types, complex or
    sparse gradients, other devices, ``differentiable=True``) goes through torch's own update.
    ``foreach`` and ``fused`` choose among torch's implementations, so they matter only there.
    Parameters that share memory are updated one after the other, and a negative rate set in a group
    ascends, both as in torch.

    Args:
        params: parameters or groups of them, as every ``torch.optim.Optimizer`` takes.
        lr: learning rate, a float or a tensor of one element.
        momentum: momentum factor.
        dampening: dampening of the momentum.
        weight_decay: L2 penalty.
        nesterov: Nesterov momentum.
        maximize: ascend instead of descend.
        foreach: see above.
        differentiable: see above.
        fused: see above.

    Raises:
        ValueError: a negative rate, momentum or weight decay; Nesterov without momentum.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> optimizer = gdcore.optim.SGD([weight], lr=0.5)
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> weight.tolist()
        [0.5, 1.5]

    Reference:
        ``torch.optim.SGD``; Sutskever et al., On the importance of initialization and momentum in
        deep learning, 2013.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one update of every parameter that has a gradient.

        Args:
            closure: reevaluates the model and returns the loss.

        Returns:
            What ``closure`` returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        native: list[_Tensors] = []
        others: list[_Tensors] = []
        for group in self.param_groups:
            tensors = _Tensors(group, self.state)
            if tensors.parameters:
                (native if self._is_native(tensors) else others).append(tensors)
        # All native groups in one call, which checks every tensor before it writes the first.
        if native:
            _ops.sgd([tensors.native() for tensors in native])
        for tensors in others:
            self._torch_update(tensors)
        for tensors in native + others:
            for parameter, buffer in zip(tensors.parameters, tensors.momenta, strict=False):
                self.state[parameter]["momentum_buffer"] = buffer
        return loss

    def _is_native(self, tensors: "_Tensors") -> bool:
        return (
            not tensors.group["differentiable"]
            and getattr(self, "grad_scale", None) is None
            and getattr(self, "found_inf", None) is None
            and all(map(_is_native, tensors.parameters + tensors.grads))
        )

    def _torch_update(self, tensors: "_Tensors") -> None:
        group = tensors.group
        with torch.set_grad_enabled(group["differentiable"]):
            torch_sgd(
                tensors.parameters,
                tensors.grads,
                tensors.momenta,
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=group["dampening"],
                nesterov=group["nesterov"],
                maximize=group["maximize"],
                has_sparse_grad=any(grad.is_sparse for grad in tensors.grads),
                foreach=group["foreach"],
                fused=group["fused"],
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
            )


class _Tensors:
    """What one group updates: parameters, gradients and, with momentum, buffers (None: fresh)."""

    def __init__(self, group: dict[str, Any], state: Mapping[Tensor, Any]) -> None:
        self.group = group
        self.parameters: list[Tensor] = [p for p in group["params"] if p.grad is not None]
        self.grads = [cast(Tensor, p.grad) for p in self.parameters]
        self.momenta: list[Tensor | None] = []
        if group["momentum"] != 0:
            self.momenta = [state.get(p, {}).get("momentum_buffer") for p in self.parameters]

    def native(self) -> Any:
        fresh = [buffer is None for buffer in self.momenta] or [False] * len(self.parameters)
        for i, buffer in enumerate(self.momenta):
            if buffer is None:
                self.momenta[i] = torch.empty_like(self.parameters[i], requires_grad=False)
        group = self.group
        return (
            self.parameters,
            self.grads,
            self.momenta,
            fresh,
            float(group["lr"]),
            float(group["momentum"]),
            float(group["dampening"]),
            float(group["weight_decay"]),
            group["nesterov"],
            group["maximize"],
        )
