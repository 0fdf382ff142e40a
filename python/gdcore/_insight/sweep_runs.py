"""Ways to train many runs at once: in closed form, on the reduced rows, or over all rows.

Each takes the starts Θ (q, k, runs) and gives the losses (epochs + 1, runs), of which the last is
that of the parameters after the last update, and the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from .descent import Descents, Settings
from .design import Design, Reduced
from .spectrum import Spectrum
from .updates import Updates

__all__ = ["batches", "closed_form", "on_reduced", "over_rows"]

_ELEMENTS = 2**20
"""Residuals held at a time, of a block of rows for all runs."""


def closed_form(
    spectrum: Spectrum, theta: Tensor, settings: Settings, epochs: int
) -> tuple[Tensor, Tensor]:
    """SGD that treats all parameters alike: no epoch depends on the one before."""
    q, k, runs = theta.shape

    def along(values: Tensor) -> Tensor:
        return (spectrum.directions @ values.reshape(q, k * runs)).reshape(-1, k, runs)

    moved = along(theta - spectrum.start[..., None])
    residual = spectrum.residual[..., None] + spectrum.singular[:, None, None] * moved
    path = Descents(spectrum, residual, along(theta), settings)
    losses = path.losses(epochs + 1)
    displaced = path.displacements(epochs).reshape(-1, k * runs)
    return losses, theta + (spectrum.directions.T @ displaced).reshape(q, k, runs)


def on_reduced(
    reduced: Reduced, theta: Tensor, kind: str, settings: dict[str, Any], epochs: int
) -> tuple[Tensor, Tensor]:
    """Every epoch over the few rows that stand for all, in float64."""
    theta = theta.clone()
    q, k, runs = theta.shape
    rows, target, flat = reduced.rows, reduced.target[..., None], theta.view(q, k * runs)
    residual = torch.empty(len(rows), k * runs, dtype=torch.float64, device="cpu")
    grad = torch.empty_like(flat)
    updates = Updates(kind, settings, theta)
    losses = torch.empty(epochs + 1, runs, dtype=torch.float64, device="cpu")
    for epoch in range(epochs + 1):
        shaped = torch.mm(rows, flat, out=residual).view(-1, k, runs).sub_(target)
        squares = torch.linalg.vector_norm(shaped, dim=(0, 1)).square_()
        losses[epoch] = squares.add_(reduced.rest).mul_(reduced.scale)
        if epoch < epochs:
            torch.mm(rows.T, residual, out=grad).mul_(2 * reduced.scale)
            updates.step(theta, grad.view(q, k, runs))
    return losses, theta


def batches(
    design: Design, size: int | None, shuffle: bool, generator: torch.Generator | None
) -> Iterator[Any]:
    """The rows of each step of one epoch."""
    n = len(design.target)
    size = size or n
    order = None
    if shuffle:
        # In the order of a DataLoader, which draws a seed for its workers from the same generator.
        torch.empty((), dtype=torch.int64, device="cpu").random_(generator=generator)
        if generator is None:
            seed = int(torch.empty((), dtype=torch.int64, device="cpu").random_().item())
            generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(n, generator=generator, device="cpu")
        torch.randperm(
            n, generator=generator, device="cpu"
        )  # a RandomSampler's, of which it takes no rows
    for first in range(0, n, size):
        rows = slice(first, min(first + size, n))
        yield rows if order is None else order[rows].to(design.features.device)


def over_rows(
    design: Design,
    theta: Tensor,
    kind: str,
    settings: dict[str, Any],
    epochs: Iterable[Iterable[Any]],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Every step over its rows, which all runs share, in the parameters' dtype."""
    theta = theta.to(design.features.device, dtype)
    cast = {
        key: value.to(theta) if isinstance(value, Tensor) else value
        for key, value in settings.items()
    }
    updates = Updates(kind, cast, theta)
    losses = []
    for steps in epochs:
        total, weights = torch.zeros((), dtype=torch.float64, device="cpu"), 0.0
        for rows in steps:
            loss, grad = _objective(design, theta, rows, gradient=True)
            updates.step(theta, grad)
            count = float(_count(design, rows))
            total = total + loss * count
            weights += count
        losses.append(total / weights)
    losses.append(_objective(design, theta, slice(0, len(design.target)), gradient=False)[0])
    return torch.stack(losses), theta.double().cpu()


def _count(design: Design, rows: Any) -> int:
    return len(range(*rows.indices(len(design.target)))) if isinstance(rows, slice) else len(rows)


def _objective(
    design: Design, theta: Tensor, rows: Any, *, gradient: bool
) -> tuple[Tensor, Tensor]:
    """The losses (runs,) in float64 and the gradient (q, k, runs) over some rows, by blocks."""
    q, k, runs = theta.shape
    flat, grad = theta.reshape(q, k * runs), torch.zeros_like(theta).view(q, k * runs)
    loss = torch.zeros(runs, dtype=torch.float64, device="cpu")
    total = 0.0
    count = _count(design, rows)
    outputs = design.target.shape[1]
    step = max(_ELEMENTS // (outputs * runs), 1)
    for first in range(0, count, step):
        if isinstance(rows, slice):
            which: Any = slice(rows.start + first, min(rows.start + first + step, rows.stop))
        else:
            which = rows[first : first + step]
        features, target, weight = design.rows(which, theta.dtype)
        residual = features @ flat
        shaped = residual.view(-1, k, runs).sub_(target[..., None])
        if weight is None:
            loss += shaped.square().sum((0, 1), dtype=torch.float64).cpu()
            total += shaped.shape[0] * k
        else:
            weighted = shaped * weight[..., None]
            loss += (weighted * shaped).sum((0, 1), dtype=torch.float64).cpu()
            total += float(weight.double().sum()) * k
            residual = weighted.view(-1, k * runs)
        if gradient:
            grad.addmm_(features.T, residual)
    scale = 1.0
    if design.mean:  # of weights that are all zero it is no number, and every run diverges, as fit
        scale = 1 / total if total else math.nan
    return loss * scale, grad.mul_(2 * scale).view(q, k, runs)
