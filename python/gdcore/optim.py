"""Optimizers whose updates run in one native call."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _ops

__all__ = ["SGD"]

_NATIVE_DTYPES = (torch.float32, torch.float64)


def _is_native(tensor: Tensor) -> bool:
    return (
        tensor.dtype in _NATIVE_DTYPES
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
    )


class SGD(torch.optim.SGD):
    r"""Stochastic gradient descent with ``torch.optim.SGD``'s arguments, state and numbers.

    ``g ← ±grad + weight_decay p``; ``b ← momentum b + (1 - dampening) g``, or ``g`` at the first
    step; ``g ← g + momentum b`` (Nesterov) or ``b``; ``p ← p - lr g``. All tensors of a group are
    updated in one native call, in place. What the kernels do not take (half types, complex or
    sparse gradients, other devices, ``differentiable=True``) goes through torch's own update.
    ``foreach`` and ``fused`` choose among torch's implementations, so they matter only there.

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
        for group in self.param_groups:
            parameters: list[Tensor] = []
            grads: list[Tensor] = []
            momenta: list[Tensor | None] = []
            sparse = self._init_group(  # type: ignore[no-untyped-call]
                group, parameters, grads, momenta
            )
            if not parameters:
                continue
            scaled = getattr(self, "grad_scale", None) is not None or (
                getattr(self, "found_inf", None) is not None
            )
            if group["differentiable"] or scaled or not all(map(_is_native, parameters + grads)):
                self._torch_update(group, parameters, grads, momenta, sparse)
            else:
                self._native_update(group, parameters, grads, momenta)
            for parameter, buffer in zip(parameters, momenta, strict=False):
                self.state[parameter]["momentum_buffer"] = buffer
        return loss

    def _native_update(
        self,
        group: dict[str, Any],
        parameters: list[Tensor],
        grads: list[Tensor],
        momenta: list[Tensor | None],
    ) -> None:
        fresh = [buffer is None for buffer in momenta] or [False] * len(parameters)
        for i, buffer in enumerate(momenta):
            if buffer is None:
                momenta[i] = torch.empty_like(parameters[i], requires_grad=False)
        _ops.sgd(
            parameters,
            grads,
            momenta,
            fresh=fresh,
            lr=float(group["lr"]),
            momentum=group["momentum"],
            dampening=group["dampening"],
            weight_decay=float(group["weight_decay"]),
            nesterov=group["nesterov"],
            maximize=group["maximize"],
        )

    def _torch_update(
        self,
        group: dict[str, Any],
        parameters: list[Tensor],
        grads: list[Tensor],
        momenta: list[Tensor | None],
        sparse: bool,
    ) -> None:
        with torch.set_grad_enabled(group["differentiable"]):
            torch.optim.sgd.sgd(
                parameters,
                grads,
                momenta,
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=group["dampening"],
                nesterov=group["nesterov"],
                maximize=group["maximize"],
                has_sparse_grad=sparse,
                foreach=group["foreach"],
                fused=group["fused"],
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
            )
