"""How far an optimizer's steps may be from exact arithmetic, in gdcore's kernels and in torch's.

Each formula is that of torch's single-tensor path, and each of its products, sums, quotients and
roots is charged one rounding in the dtype, each setting one for its conversion (kernels/rounding.py
says how they add up). Fusing a multiply-add only saves roundings, so the bounds hold for both.
What is computed of the settings alone (bias corrections) is rounded as double arithmetic rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .kernels.rounding import Bounded, bounded

DOUBLE = 2.0**-53

States = dict[str, Bounded]
"""After a step: "parameter", and the states under torch's names."""


class Numbers:
    """Settings as the kernels see them: rounded from double to the dtype."""

    def __init__(self, unit: float) -> None:
        self.unit = unit

    def double(self, value: float) -> Bounded:
        return Bounded(np.array(value, np.longdouble), np.zeros(()), DOUBLE)

    def __call__(self, value: float | Bounded) -> Bounded:
        exact = value if isinstance(value, Bounded) else self.double(value)
        return exact.in_unit(self.unit)


def power(base: float, exponent: int) -> Bounded:
    """What the C library's ``pow`` may return: within one unit in the last place."""
    value = np.array(np.longdouble(base) ** exponent)
    return Bounded(value, 2 * DOUBLE * value.astype(np.float64), DOUBLE)


def penalised(p: Bounded, grad: Bounded, weight_decay: float, maximize: bool) -> Bounded:
    g = -grad if maximize else grad
    return g + p * Numbers(p.unit)(weight_decay) if weight_decay != 0 else g


def lerp(a: Bounded, g: Bounded, weight: float) -> Bounded:
    """The way round that torch goes."""
    number = Numbers(a.unit)
    if weight < 0.5:
        return a + (g - a) * number(weight)
    return g - (g - a) * (number(1.0) - number(weight))


def sgd(
    p: Bounded,
    grads: list[Bounded],
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> list[States]:
    number, steps = Numbers(p.unit), []
    b: Bounded | None = None
    for grad in grads:
        g = penalised(p, grad, weight_decay, maximize)
        if momentum != 0:
            rest = number.double(1.0) - number.double(dampening)
            b = g if b is None else b * number(momentum) + g * number(rest)
            g = g + b * number(momentum) if nesterov else b
        p = p - g * number(lr)
        steps.append({"parameter": p} if b is None else {"parameter": p, "momentum_buffer": b})
    return steps


def rmsprop(
    p: Bounded,
    grads: list[Bounded],
    *,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    maximize: bool = False,
) -> list[States]:
    number, steps = Numbers(p.unit), []
    zero = Bounded(np.zeros_like(p.value), np.zeros(p.value.shape), p.unit)
    v = b = a = zero
    rest = number(number.double(1.0) - number.double(alpha))
    for grad in grads:
        g = penalised(p, grad, weight_decay, maximize)
        v = v * number(alpha) + g * rest * g
        states, variance = {"square_avg": v}, v
        if centered:
            states["grad_avg"] = a = lerp(a, g, 1 - alpha)
            variance = v - a * a
        divisor = variance.sqrt() + number(eps)
        if momentum > 0:
            states["momentum_buffer"] = b = b * number(momentum) + g / divisor
            p = p - b * number(lr)
        else:
            p = p - g * number(lr) / divisor
        steps.append({"parameter": p, **states})
    return steps


def adam(
    p: Bounded,
    grads: list[Bounded],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    amsgrad: bool = False,
    maximize: bool = False,
) -> list[States]:
    number, steps = Numbers(p.unit), []
    one = number.double(1.0)
    zero = Bounded(np.zeros_like(p.value), np.zeros(p.value.shape), p.unit)
    m = v = w = zero
    rest = number(one - number.double(betas[1]))
    for t, grad in enumerate(grads, 1):
        g = penalised(p, grad, 0.0 if decoupled_weight_decay else weight_decay, maximize)
        if decoupled_weight_decay:
            p = p * number(one - number.double(lr) * number.double(weight_decay))
        m = lerp(m, g, 1 - betas[0])
        v = v * number(betas[1]) + g * rest * g
        states, second = {"exp_avg": m, "exp_avg_sq": v}, v
        if amsgrad:
            states["max_exp_avg_sq"] = second = w = w.maximum(v)
        step_size = number.double(lr) / (one - power(betas[0], t))
        correction = (one / (one - power(betas[1], t)).sqrt()).in_unit(p.unit)
        divisor = second.sqrt() * correction + number(eps)
        p = p - m * step_size.in_unit(p.unit) / divisor
        steps.append({"parameter": p, **states})
    return steps


def adamw(p: Bounded, grads: list[Bounded], **settings: Any) -> list[States]:
    settings = {"weight_decay": 1e-2, **settings}
    return adam(p, grads, decoupled_weight_decay=True, **settings)


BOUNDS: dict[str, Callable[..., list[States]]] = {
    "SGD": sgd,
    "RMSprop": rmsprop,
    "Adam": adam,
    "AdamW": adamw,
}

DEFAULT_RATE = {"SGD": 1e-3, "RMSprop": 1e-2, "Adam": 1e-3, "AdamW": 1e-3}


def steps_of(name: str, p: Tensor, grads: list[Tensor], **settings: Any) -> list[States]:
    """Each state after each step of ``torch.optim.<name>`` with these settings."""
    settings.setdefault("lr", DEFAULT_RATE[name])
    settings["lr"] = float(settings["lr"])
    return BOUNDS[name](bounded(p), [bounded(grad) for grad in grads], **settings)


def gradients(steps: int, like: Tensor, seed: int = 0) -> list[Tensor]:
    """Gradients without zeros; the second is the largest, so that AMSGrad has something to keep."""
    generator = torch.Generator().manual_seed(seed)
    grads = []
    for step in range(steps):
        grad = torch.randn(like.shape, generator=generator, dtype=torch.float64, device="cpu")
        grads.append((grad * (3.0 if step == 1 else 1.0)).to(like.device, like.dtype))
    return grads
