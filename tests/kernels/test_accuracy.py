"""float32 losses and gradients are as close to the exact ones as PyTorch's, or closer.

Over random problems of a size, 100 of most: the root-mean-square distance from `gdcore.reference`
in float64, of the fused result and of eager PyTorch's on the same data, for the loss and for each
gradient. What decides is how many roundings a sum's terms go through.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gdcore import _ops, reference

SEEDS = 100

Formula = Callable[..., Tensor]
Draw = Callable[[torch.Generator], tuple[Sequence[Tensor], Sequence[Tensor]]]


class Case(NamedTuple):
    draw: Draw
    """Parameters and data of one random problem."""
    fused: Callable[..., Sequence[Tensor]]
    """Of parameters, then data: the loss, then the parameters' gradients."""
    eager: Formula
    exact: Formula
    seeds: int = SEEDS


def with_gradients(
    formula: Formula, parameters: Sequence[Tensor], data: Sequence[Tensor]
) -> list[Tensor]:
    variables = [p.detach().requires_grad_() for p in parameters]
    loss = formula(*variables, *data)
    return [loss.detach(), *torch.autograd.grad(loss, variables)]


def distances(case: Case) -> list[tuple[float, float]]:
    """Root-mean-square distances, fused and eager, of the loss and of each gradient."""
    squares = []
    for seed in range(case.seeds):
        parameters, data = case.draw(torch.Generator().manual_seed(seed))
        exact = with_gradients(
            case.exact, [p.double() for p in parameters], [t.double() for t in data]
        )
        fused = case.fused(*parameters, *data)
        eager = with_gradients(case.eager, parameters, data)
        squares.append(
            [
                [float((mine.double() - other).square().mean()) for mine in pair]
                for *pair, other in zip(fused, eager, exact, strict=True)
            ]
        )
    means = torch.tensor(squares, dtype=torch.float64).mean(0).sqrt()
    return [(float(fused), float(eager)) for fused, eager in means]


def linear(n: int, d: int, k: int = 1, seeds: int = SEEDS) -> Case:
    def draw(generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        weight, bias, x, target = (
            torch.randn(shape, generator=generator) for shape in ((k, d), (k,), (n, d), (n, k))
        )
        return [weight, bias, x], [target]

    def fused(weight: Tensor, bias: Tensor, x: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return _ops.linear_mse(x, weight, bias, target, "mean", True)

    def eager(weight: Tensor, bias: Tensor, x: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(F.linear(x, weight, bias), target)

    def exact(weight: Tensor, bias: Tensor, x: Tensor, target: Tensor) -> Tensor:
        return reference.linear_mse_loss(x, weight, bias, target)

    return Case(draw, fused, eager, exact, seeds)


def badly_scaled(n: int, d: int, offset: float) -> Case:
    """Columns from 1e-6 to 1e6, or all far from zero; the gradient of each weight counts apart."""
    scales = torch.ones(d) if offset else torch.logspace(-6, 6, d)

    def draw(generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        weights = (torch.randn(d, generator=generator) / scales / (offset or 1)).split(1)
        bias = torch.randn(1, generator=generator)
        x = torch.randn(n, d, generator=generator) * scales + offset
        return [*weights, bias], [x, torch.randn(n, 1, generator=generator) + offset]

    def fused(*given: Tensor) -> tuple[Tensor, ...]:
        *weights, bias, x, target = given
        weight = torch.cat(weights)[None]
        loss, dweight, dbias, _ = _ops.linear_mse(x, weight, bias, target, "mean", False)
        assert dbias is not None
        return loss, *dweight[0].split(1), dbias

    def eager(*given: Tensor) -> Tensor:
        *weights, bias, x, target = given
        return F.mse_loss(F.linear(x, torch.cat(weights)[None], bias), target)

    return Case(draw, fused, eager, eager)


def sine(n: int) -> tuple[Tensor, Tensor]:
    x = torch.linspace(-torch.pi, torch.pi, n)
    return x, torch.sin(x)


def cubic(n: int) -> Case:
    """A cubic fitted to a sine, as "Learning PyTorch with examples" writes it."""

    def draw(generator: torch.Generator) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
        return [torch.randn(4, generator=generator)], sine(n)

    def fused(coefficients: Tensor, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return _ops.polynomial_mse(x, coefficients, target, "mean")

    def eager(coefficients: Tensor, x: Tensor, target: Tensor) -> Tensor:
        a, b, c, d = coefficients
        return F.mse_loss(a + b * x + c * x**2 + d * x**3, target)

    def exact(coefficients: Tensor, x: Tensor, target: Tensor) -> Tensor:
        return reference.polynomial_mse_loss(x, coefficients, target)

    return Case(draw, fused, eager, exact)


def legendre(n: int) -> Case:
    """a + b P₃(c + d x) fitted to a sine, likewise."""

    def draw(generator: torch.Generator) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
        start = torch.tensor([0.0, -1.0, 0.0, 0.3])
        return list(start + 0.1 * torch.randn(4, generator=generator)), sine(n)

    def fused(a: Tensor, b: Tensor, c: Tensor, d: Tensor, *data: Tensor) -> tuple[Tensor, ...]:
        x, target = data
        return _ops.legendre_mse(x, a, b, c, d, target, "mean")

    def exact(a: Tensor, b: Tensor, c: Tensor, d: Tensor, x: Tensor, target: Tensor) -> Tensor:
        return reference.legendre_mse_loss(x, a, b, c, d, target)

    return Case(draw, fused, exact, exact)


def mse(n: int) -> Case:
    def draw(generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        input, target = torch.randn(2, n, generator=generator)
        return [input], [target]

    def fused(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return _ops.mse(input, target, "mean", True)

    return Case(draw, fused, F.mse_loss, reference.mse_loss)


CASES = {
    "linear 3 x 1": linear(3, 1),
    "linear 32 x 10": linear(32, 10),
    "linear 256 x 64": linear(256, 64),
    "linear 10000 x 10": linear(10_000, 10),
    # Past 16 MiB, where rows of few columns have a kernel of their own; errors of so many average.
    "linear 600000 x 8": linear(600_000, 8, seeds=10),
    "linear 2 x 17, 8 outputs": linear(2, 17, 8),
    "linear 32 x 16, 8 outputs": linear(32, 16, 8),
    "linear 100 x 20, 8 outputs": linear(100, 20, 8),
    "linear 32 x 10, 16 outputs": linear(32, 10, 16),
    "linear 256 x 64, 16 outputs": linear(256, 64, 16),
    "linear 10000 x 7, columns from 1e-6 to 1e6": badly_scaled(10_000, 7, 0.0),
    "linear 10000 x 3, offset 1e6": badly_scaled(10_000, 3, 1e6),
    "cubic, 2000 points": cubic(2000),
    "legendre, 2000 points": legendre(2000),
    "mse, 1000 elements": mse(1000),
}


@pytest.mark.parametrize("case", CASES)
def test_at_most_the_distance_of_eager(case: str) -> None:
    for which, (fused, eager) in enumerate(distances(CASES[case])):
        what = f"gradient {which - 1}" if which else "loss"
        assert fused <= eager, f"{what}: {fused:.3g} from the exact one, eager {eager:.3g}"
