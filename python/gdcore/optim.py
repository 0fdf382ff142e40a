"""Optimizers whose updates run in one native call."""

from typing import Any

import torch
from torch import Tensor

from . import _ops
from ._optim.step import NativeStep

__all__ = ["SGD", "Adam", "AdamW", "RMSprop"]


class SGD(NativeStep, torch.optim.SGD):
    r"""Stochastic gradient descent with ``torch.optim.SGD``'s arguments, state and numbers.

    ``g ← ±grad + weight_decay p``; ``b ← momentum b + (1 - dampening) g``, or ``g`` at the first
    step; ``g ← g + momentum b`` (Nesterov) or ``b``; ``p ← p - lr g``.

    All parameters are updated in one native call, in place, on the CPU, and on CUDA where gdcore
    was built with it. bfloat16 and float16 are computed in float32 and rounded once. What the
    kernels do not take (complex or sparse gradients, other devices, subclasses of tensors,
    ``differentiable=True``, dispatch modes that look on) goes through torch's own update, in
    float32 for half types on the CPU, and ``foreach`` and ``fused`` choose among torch's
    implementations for the other dtypes there. A rate in a tensor on CUDA is read there. With
    ``fused=True`` a ``GradScaler`` leaves it to the step to unscale gradients, float16 included.
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
        RuntimeError: ``fused`` together with ``foreach`` or ``differentiable``.

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

    _namesake = torch.optim.SGD
    _kernels = _ops.Step("sgd")

    def _fresh_states(self, group: dict[str, Any]) -> dict[Tensor, dict[str, Any]]:
        # The namesake's appears only at the end of its step. What this one holds is not read.
        return {
            p: {"momentum_buffer": torch.empty_like(p, requires_grad=False)}
            for p in group["params"]
        }


class RMSprop(NativeStep, torch.optim.RMSprop):
    r"""RMSprop with ``torch.optim.RMSprop``'s arguments, state and numbers.

    ``g ← ±grad + weight_decay p``; ``v ← alpha v + (1 - alpha) g²``; ``d ← √v + eps``, or
    ``√(v - a²) + eps`` with ``a ← a + (1 - alpha) (g - a)`` (centered); ``p ← p - lr g / d``, or
    with momentum ``b ← momentum b + g / d`` and ``p ← p - lr b``.

    One native call updates all parameters, as in `SGD`, which says what torch updates instead.

    Args:
        params: parameters or groups of them, as every ``torch.optim.Optimizer`` takes.
        lr: learning rate, a float or a tensor of one element.
        alpha: smoothing of the squared gradients.
        eps: added to the root, against division by zero.
        weight_decay: L2 penalty.
        momentum: momentum factor.
        centered: divide by the root of an estimate of the variance.
        capturable: count the steps on the device, so that a CUDA graph can capture them; torch
            refuses it at the first step on the CPU.
        foreach: chooses among torch's implementations, where torch updates.
        maximize: ascend instead of descend.
        differentiable: torch updates, and autograd records it.

    Raises:
        ValueError: a negative rate, ``alpha``, ``eps``, momentum or weight decay.
        RuntimeError: at a step, sparse gradients.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> optimizer = gdcore.optim.RMSprop([weight], lr=0.5, alpha=0.75, eps=0.0)
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> weight.tolist()
        [0.0, 1.0]

    Reference:
        ``torch.optim.RMSprop``; Hinton, Neural Networks for Machine Learning, lecture 6, 2012;
        Graves, Generating Sequences With Recurrent Neural Networks, 2013 (centered).
    """

    _namesake = torch.optim.RMSprop
    _kernels = _ops.Step("rmsprop")


class Adam(NativeStep, torch.optim.Adam):
    r"""Adam with ``torch.optim.Adam``'s arguments, state and numbers.

    ``g ← ±grad + weight_decay p``; ``m ← m + (1 - β₁) (g - m)``; ``v ← β₂ v + (1 - β₂) g²``;
    ``p ← p - lr / (1 - β₁ᵗ) m / (√v / √(1 - β₂ᵗ) + eps)`` at step t, with the largest v so far in
    place of v (AMSGrad). With ``decoupled_weight_decay`` the penalty is not in g; instead
    ``p ← (1 - lr weight_decay) p`` comes first.

    One native call updates all parameters, as in `SGD`, which says what torch updates instead;
    betas that are tensors, too.

    Args:
        params: parameters or groups of them, as every ``torch.optim.Optimizer`` takes.
        lr: learning rate, a float or a tensor of one element.
        betas: β₁ and β₂, how much the averages of g and g² keep at a step.
        eps: added to the root, against division by zero.
        weight_decay: L2 penalty, or decoupled decay.
        amsgrad: divide by the largest average so far.
        foreach: chooses among torch's implementations, where torch updates.
        maximize: ascend instead of descend.
        capturable: count the steps on the device, so that a CUDA graph can capture them; torch
            refuses it at the first step on the CPU.
        differentiable: torch updates, and autograd records it.
        fused: chooses among torch's implementations, where torch updates; with True the steps are
            counted on the device.
        decoupled_weight_decay: decay the parameters themselves, as `AdamW` does.

    Raises:
        ValueError: a negative rate, ``eps`` or weight decay; a beta outside [0, 1); ``foreach``
            with a rate that is a tensor.
        RuntimeError: ``fused`` together with ``foreach`` or ``differentiable``; at a step, sparse
            gradients.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> optimizer = gdcore.optim.Adam([weight], lr=0.5, betas=(0.5, 0.75), eps=0.0)
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> weight.tolist()
        [0.5, 1.5]

    Reference:
        ``torch.optim.Adam``; Kingma and Ba, Adam: A Method for Stochastic Optimization, 2015; Reddi
        et al., On the Convergence of Adam and Beyond, 2018 (AMSGrad).
    """

    _namesake = torch.optim.Adam
    _kernels = _ops.Step("adam")


class AdamW(NativeStep, torch.optim.AdamW):
    r"""Adam with decoupled weight decay: ``torch.optim.AdamW``'s arguments, state and numbers.

    ``p ← (1 - lr weight_decay) p``, then the update of `Adam` without its penalty.

    Args:
        params: parameters or groups of them, as every ``torch.optim.Optimizer`` takes.
        lr: learning rate, a float or a tensor of one element.
        betas: how much the averages of gradients and of their squares keep at a step.
        eps: added to the root, against division by zero.
        weight_decay: decoupled decay.
        amsgrad: divide by the largest average so far.
        maximize: ascend instead of descend.
        foreach: chooses among torch's implementations, where torch updates.
        capturable: count the steps on the device, so that a CUDA graph can capture them; torch
            refuses it at the first step on the CPU.
        differentiable: torch updates, and autograd records it.
        fused: chooses among torch's implementations, where torch updates; with True the steps are
            counted on the device.

    Raises:
        ValueError: a negative rate, ``eps`` or weight decay; a beta outside [0, 1); ``foreach``
            with a rate that is a tensor.
        RuntimeError: ``fused`` together with ``foreach`` or ``differentiable``; at a step, sparse
            gradients.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> optimizer = gdcore.optim.AdamW(
        ...     [weight], lr=0.5, betas=(0.5, 0.75), eps=0.0, weight_decay=0.5
        ... )
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> weight.tolist()
        [0.25, 1.0]

    Reference:
        ``torch.optim.AdamW``; Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019.
    """

    _namesake = torch.optim.AdamW
    _kernels = _ops.Step("adam")
