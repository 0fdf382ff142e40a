"""How far losses and gradients in float32 are from float64, for ever more rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import gdcore
from table import Table

SUITE = "accuracy"
FIGURE = "gdcore's distance over eager's: largest"
LARGEST_QUICK = 10**6
BLOCK_ELEMENTS = 2**20

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Model:
    """Predictions Φ θ with a column of θ for each output, and random problems for it.

    Args:
        seeds: How many problems of each number of rows.
        fused: The loss by gdcore, of x, y and θ.
        eager: The same by PyTorch.
        features: Φ of rows of x.
        scales: What each column of x is multiplied by, after ``offset`` is added.
        offset: What is added to the targets, too.
    """

    seeds: Mapping[int, int]
    fused: Loss
    eager: Loss
    features: Callable[[Tensor], Tensor]
    scales: Tensor
    outputs: int = 1
    offset: float = 0.0

    def random(self, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """x, y and a θ whose predictions are of the targets' size."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, len(self.scales), generator=generator).add_(self.offset)
        y = torch.randn(n, self.outputs, generator=generator).add_(x[:, :1], alpha=2)
        x *= self.scales
        sizes = self.features(self.scales[None] * (1 + self.offset))
        theta = torch.randn(sizes.shape[1], self.outputs, generator=generator) / sizes.T
        return x, y, theta.requires_grad_()


def with_ones(x: Tensor) -> Tensor:
    return torch.cat((x, x.new_ones(len(x), 1)), 1)


def linear(seeds: Mapping[int, int], scales: Tensor, outputs: int = 1, offset: float = 0) -> Model:
    def fused(x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
        return gdcore.functional.linear_mse_loss(x, theta[:-1].T, theta[-1], y)

    def eager(x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
        return F.mse_loss(F.linear(x, theta[:-1].T, theta[-1]), y)

    return Model(seeds, fused, eager, with_ones, scales, outputs, offset)


def cubic(seeds: Mapping[int, int]) -> Model:
    def fused(x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
        return gdcore.functional.polynomial_mse_loss(x[:, 0], theta[:, 0], y[:, 0])

    def eager(x: Tensor, y: Tensor, theta: Tensor) -> Tensor:
        a, b, c, d = theta
        return F.mse_loss(a + b * x + c * x**2 + d * x**3, y)

    def powers(x: Tensor) -> Tensor:
        return torch.cat((torch.ones_like(x), x, x**2, x**3), 1)

    return Model(seeds, fused, eager, powers, torch.ones(1))


MODELS = {
    "line": linear({10**3: 30, 10**4: 10, 10**6: 3, 10**8: 1}, torch.ones(1)),
    "8 columns": linear({10**4: 10, 10**6: 3, 10**7: 1}, torch.ones(8)),
    "64 columns": linear({10**4: 10, 10**6: 1}, torch.ones(64)),
    "64 columns, 16 outputs": linear({10**4: 3, 10**5: 1}, torch.ones(64), outputs=16),
    "columns from 1e-6 to 1e6": linear({10**4: 10, 10**6: 3}, torch.logspace(-6, 6, 7)),
    "3 columns, offset 1e6": linear({10**4: 10, 10**6: 3}, torch.ones(3), offset=1e6),
    "cubic": cubic({10**4: 10, 10**6: 3, 10**7: 1}),
}


def table(quick: bool) -> Table:
    """Each model, for each number of rows."""
    rows, samples = [["model", "rows", "gdcore", "eager", "gdcore / eager"]], {}
    largest = 0.0
    for name, model in MODELS.items():
        for n, seeds in model.seeds.items():
            if quick and n > LARGEST_QUICK:
                continue
            each = [distances(model, n, seed) for seed in range(seeds)]
            samples[f"{name}, {n}"] = {
                "gdcore": [a for a, _ in each],
                "eager": [b for _, b in each],
            }
            ours, eager = torch.tensor(each).square().mean(0).sqrt().tolist()
            largest = max(largest, ours / eager)
            cells = [f"{ours:.1e}", f"{eager:.1e}", f"{ours / eager:.2f}"]
            rows.append([name, f"{n:,}".replace(",", " "), *cells])
    heading = "Mean losses and their gradients, float32: distance from float64."
    notes = [
        "Root mean square over random problems, of the loss and each gradient relative to the sum "
        "of its terms' magnitudes; float64 sums blocks of rows, so that nothing is stored in it."
    ]
    return Table(SUITE, heading, rows, notes, {FIGURE: largest}, samples)


def distances(model: Model, n: int, seed: int) -> tuple[float, float]:
    """Of gdcore's and of eager PyTorch's, for one problem: root mean squares."""
    x, y, theta = model.random(n, seed)
    expected, magnitudes = in_float64(model, x, y, theta.detach().double())

    def distance(loss_of: Loss) -> float:
        loss = loss_of(x, y, theta)
        (gradient,) = torch.autograd.grad(loss, theta)
        found = torch.cat((loss.detach().reshape(1), gradient.flatten())).double()
        return ((found - expected) / magnitudes).square().mean().sqrt().item()

    return distance(model.fused), distance(model.eager)


def in_float64(model: Model, x: Tensor, y: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient from the formulas, a block of rows at a time; and their terms' magnitudes,
    added likewise.
    """
    sums = torch.zeros(2, 1 + theta.numel(), dtype=torch.float64)
    block = max(1, BLOCK_ELEMENTS // len(theta))
    for rows, targets in zip(x.split(block), y.split(block), strict=True):
        features = model.features(rows.double())
        residual = features @ theta - targets.double()
        loss = residual.square().sum().reshape(1)
        sums[0] += torch.cat((loss, (2 * features.T @ residual).flatten()))
        sums[1] += torch.cat((loss, (2 * features.abs().T @ residual.abs()).flatten()))
    expected, magnitudes = sums / y.numel()
    return expected, magnitudes
