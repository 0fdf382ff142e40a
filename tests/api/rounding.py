"""How far two roundings of one formula may lie apart.

Every formula here is a tree of sums and products. A value that passes at most m roundings on its
way from an argument to the result carries m factors 1 + δ with |δ| ≤ u, whatever the order of the
sums and wherever a multiply-add is fused. So a computed result is within γ(m) = m u / (1 - m u)
times the same formula over absolute values (its magnitude) of the exact one, and two computed
results are within twice that of each other. Source: Higham, Accuracy and Stability of Numerical
Algorithms, 2002, chapter 3.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Formula = Callable[..., Tensor]

UNIT_ROUNDOFF = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}


def assert_within_rounding(
    actual: Tensor, expected: Tensor, magnitude: Tensor, roundings: int, what: str = "result"
) -> None:
    """Two computed results of one formula: the same dtype and shape, and within 2 γ(m)."""
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype}, not {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: {actual.shape}, not {expected.shape}"
    error = roundings * UNIT_ROUNDOFF[actual.dtype]
    assert error < 0.01, f"{what}: a bound that shows nothing"
    # A history is on the CPU, whatever it is of.
    actual, expected, magnitude = (t.detach().cpu().double() for t in (actual, expected, magnitude))
    bound = 2 * error / (1 - error) * magnitude
    distance = (actual - expected).abs()
    worst = (distance - bound).max() if distance.numel() else torch.zeros(())
    assert bool((distance <= bound).all()), (
        f"{what}: {worst:.3g} beyond the bound {bound.max():.3g}"
    )


def gradients(loss: Tensor, inputs: list[Tensor], upstream: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs, upstream)


def compare(
    fused: Formula,
    expected: Formula,
    absolute: Formula,
    inputs: tuple[Tensor, ...],
    target: Tensor,
    roundings: int,
    differentiable: range,
) -> None:
    """Loss and gradients of `fused` are those of `expected`, to the rounding of `absolute`."""
    results = []
    for formula, signs in ((fused, False), (expected, False), (absolute, True)):
        arguments = [t.detach().clone() for t in inputs]
        goal = target
        if signs:
            arguments, goal = [t.double().abs() for t in arguments], -target.double().abs()
        wanted = [arguments[i].requires_grad_() for i in differentiable]
        loss = formula(*arguments, goal)
        upstream = torch.linspace(0.5, 2.0, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
        results.append((loss, *gradients(loss, wanted, upstream)))
    names = ("loss", *(f"gradient {i}" for i in differentiable))
    for name, actual, reference, magnitude in zip(names, *results, strict=True):
        assert reference.numel() == 0 or reference.abs().max() > 0, f"{name} is zero: shows nothing"
        assert_within_rounding(actual, reference, magnitude, roundings, name)
