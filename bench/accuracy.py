"""How far a loss and its gradients in float32 are from float64, for ever more rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import gdcore
from table import Table

SUITE = "accuracy"
SEEDS = {10**3: 30, 10**4: 10, 10**6: 3, 10**8: 1}
"""How many random problems of each number of rows."""
LARGEST_QUICK = 10**6
FIGURE = "gdcore's distance over eager's: largest"
BLOCK = 2**20


def table(quick: bool) -> Table:
    """A line's, for each number of rows."""
    rows, samples = [["rows", "gdcore", "eager", "gdcore / eager"]], {}
    for n, seeds in SEEDS.items():
        if quick and n > LARGEST_QUICK:
            continue
        ours, eager = distances(n, seeds)
        samples[str(n)] = ours / eager
        rows.append(
            [f"{n:,}".replace(",", " "), f"{ours:.1e}", f"{eager:.1e}", f"{ours / eager:.2f}"]
        )
    heading = "a line's loss and gradients, mean, float32: distance from float64"
    notes = [
        "Root mean square of the relative distances of the loss and both gradients, over random "
        "problems; float64 sums blocks of rows, so that nothing is stored in it."
    ]
    return Table(SUITE, heading, rows, notes, {FIGURE: max(samples.values())}, samples)


def distances(n: int, seeds: int) -> tuple[float, float]:
    """Root mean squares, of `gdcore.functional.linear_mse_loss` and of eager PyTorch."""
    squares = torch.zeros(2, dtype=torch.float64)
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        x, y = (torch.randn(n, 1, generator=generator) for _ in range(2))
        y.add_(x, alpha=2)
        weight = torch.randn(1, 1, generator=generator).requires_grad_()
        bias = torch.randn(1, generator=generator).requires_grad_()
        expected = in_float64(x, y, weight, bias)
        for i, fused in enumerate((True, False)):
            found = once(fused, x, y, weight, bias)
            squares[i] += (found / expected - 1).square().mean()
    ours, eager = (squares / seeds).sqrt().tolist()
    return ours, eager


def once(fused: bool, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The loss and its gradients, end to end."""
    if fused:
        loss = gdcore.functional.linear_mse_loss(x, weight, bias, y)
    else:
        loss = F.mse_loss(F.linear(x, weight, bias), y)
    gradients = torch.autograd.grad(loss, (weight, bias))
    return torch.stack([t.detach().double().reshape(()) for t in (loss, *gradients)])


def in_float64(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same from the formulas, a block of rows at a time."""
    w, b = weight.item(), bias.item()
    sums = torch.zeros(3, dtype=torch.float64)
    for block, target in zip(x.split(BLOCK), y.split(BLOCK), strict=True):
        inputs = block.double()
        residual = w * inputs + b - target.double()
        each = (residual.square(), 2 * residual * inputs, 2 * residual)
        sums += torch.stack([part.sum() for part in each])
    return sums / len(x)
