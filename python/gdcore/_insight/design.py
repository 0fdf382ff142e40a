"""The least-squares problem behind a model, a loss and data: its rows, and what they reduce to.

A model that is affine in its parameters is a matrix Φ: prediction = offset + Φ θ. Two layouts of it
are enough. Where every output has parameters of its own over the same features, as in a linear
layer, Φ is kept once and the parameters are the columns of a (q, k) matrix. Everything else is
written out, one row of Φ per element of the prediction: (n k, p), with k = 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .._native.triangle import Block, triangle
from .._recognition.losses import NotSquaredError, squared_error_on
from .forms import NoDesign, form_of

__all__ = ["Design", "NoDesign", "Reduced", "design", "unpack"]


@dataclass(frozen=True)
class Reduced:
    """At most q rows with the loss, gradient and curvature of all n.

    loss(Θ) = scale · (‖rows Θ - target‖² + rest), the columns of Θ (q, k) being the outputs'.
    """

    rows: Tensor
    target: Tensor
    rest: float
    scale: float
    constant: Tensor
    """(q,): which features are the same number in every row."""
    total: float
    """How many rows they stand for, or the sum of their weights."""
    noise: float
    """Rounding that the reduction left in singular values, relative to the largest."""


@dataclass(frozen=True, eq=False)
class Design:
    """Rows of features and targets, and where each parameter stands in them."""

    names: tuple[str, ...]
    parameters: tuple[Tensor, ...]
    features: Tensor
    index: Tensor
    target: Tensor
    weight: Tensor | None
    mean: bool
    rowwise: bool
    """Whether its rows are those of the data, so that a batch may gather some."""

    @cached_property
    def separable(self) -> bool:
        """Whether every output has its own parameters, and every row one weight."""
        distinct = self.index.unique().numel() == self.index.numel() and bool(
            (self.index >= 0).all()
        )
        weight = self.weight
        return distinct and (weight is None or bool((weight == weight[:, :1]).all()))

    @property
    def shape(self) -> tuple[int, int]:
        """(q, k), the shape of Θ."""
        k, q = self.index.shape
        return (q, k) if self.separable else (self.size, 1)

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return sum(parameter.numel() for parameter in self.parameters)

    @cached_property
    def total(self) -> float:
        """The divisor of a mean: how many elements, or the sum of their weights."""
        if self.weight is None:
            return float(self.target.numel())
        return float(self.weight.double().sum())

    def theta(self, values: Sequence[Tensor] | None = None) -> Tensor:
        """Θ (q, k) in float64, of the parameters as they are now or of values of their shapes."""
        flat = torch.cat([v.detach().reshape(-1).double().cpu() for v in values or self.parameters])
        return flat[self.index.T.cpu()] if self.separable else flat[:, None]

    def thetas(self, parameters: dict[str, Tensor]) -> Tensor:
        """Θ (places, q, k) of values by name, of shapes (places, *the parameter's)."""
        if set(parameters) != set(self.names):
            raise ValueError(
                f"parameters: expected {', '.join(self.names)}, got {', '.join(parameters)}"
            )
        columns = [
            parameters[name].detach().double().reshape(-1, parameter.numel())
            for name, parameter in zip(self.names, self.parameters, strict=True)
        ]
        flat = torch.cat(columns, 1)
        return flat[:, self.index.T.cpu()] if self.separable else flat[..., None]

    def owners(self) -> Tensor:
        """Which parameter each element of Θ belongs to, row-major."""
        owner = torch.cat(
            [torch.full((p.numel(),), i, device="cpu") for i, p in enumerate(self.parameters)]
        )
        return owner[self.index.T.reshape(-1).cpu()] if self.separable else owner

    def split(self, theta: Tensor) -> dict[str, Tensor]:
        """Θ (q, k) as the parameters' values by name, in Θ's dtype."""
        flat = theta.reshape(-1)
        if self.separable:
            flat = torch.empty_like(flat)
            flat[self.index.T.reshape(-1).to(flat.device)] = theta.reshape(-1)
        sizes = [parameter.numel() for parameter in self.parameters]
        return {
            name: part.reshape(parameter.shape)
            for name, parameter, part in zip(
                self.names, self.parameters, flat.split(sizes), strict=True
            )
        }

    def rows(self, which: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        """Φ (b, q), targets (b, k) and weights (b, 1) of some rows: a slice, or their numbers."""
        features, target = self.features[which].to(dtype), self.target[which].to(dtype)
        weight = None if self.weight is None else self.weight[which].to(dtype)
        if self.separable:
            return features, target, None if weight is None else weight[:, :1]
        n, k = target.shape
        written_out = features.new_zeros(n, k, self.size)
        for output, places in enumerate(self.index):
            held = places >= 0
            written_out[:, output].index_add_(1, places[held], features[:, held])
        column = None if weight is None else weight.reshape(-1, 1)
        return written_out.reshape(n * k, self.size), target.reshape(-1, 1), column

    def blocks(
        self, dtype: torch.dtype, elements: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """All rows, a block at a time of about so many elements of Φ."""
        q, _ = self.shape
        rows = 1 if self.separable else self.target.shape[1]
        step = max(elements // (q * rows), 1)
        for first in range(0, len(self.target), step):
            yield self.rows(slice(first, first + step), dtype)

    def reduce(self) -> Reduced:
        """A QR factorisation of [Φ | y] in float64, block by block; nothing is squared."""
        q, k = self.shape
        # Converted only once, on the way into the block, where nothing is computed before.
        alike = self.weight is None and self.features.dtype == self.target.dtype
        dtype = self.features.dtype if alike else torch.float64
        extremes: list[Tensor] = []

        def rows(start: int, stop: int) -> Block:
            features, target, weight = self.rows(slice(start, stop), dtype)
            extremes.append(torch.stack(torch.aminmax(features, dim=0)).cpu())
            columns = features.cpu(), target.cpu()
            return Block(columns, None if weight is None else weight[:, 0].cpu())

        height = 1 if self.separable else self.target.shape[1]
        corner = triangle(rows, len(self.target), q + k, height)
        seen = torch.cat(extremes)
        constant = (seen == seen[0]).all(0)
        if not corner.isfinite().all():
            raise ValueError("data: expected finite numbers, got some that are not")
        return Reduced(
            corner[:q, :q],
            corner[:q, q:],
            float(corner[q:, q:].square().sum()),
            1 / self.total if self.mean else 1.0,
            constant,
            self.total / (len(self.index) if self.separable else 1),
            _noise(q, height * len(self.target)),
        )


def _noise(columns: int, rows: int) -> float:
    """What rounding leaves of a singular value of zero, relative to the largest.

    4 ε for each column; and 3 ε √rows, which covers columns that repeat one number: their sums
    round in the same direction in every block. The most is 9e-13, so that a condition of 1e12 is
    told from infinity whatever the size.
    """
    return min(4 * columns + 3 * math.sqrt(rows), 4096) * torch.finfo(torch.float64).eps


def unpack(data: Any) -> tuple[Any, Tensor, Tensor | None]:
    """x, y and the weights of ``(x, y)``, ``(x, y, weight)`` or a ``TensorDataset`` of these."""
    if isinstance(data, torch.utils.data.TensorDataset):
        data = data.tensors
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        got = f"{len(data)} of them" if isinstance(data, (tuple, list)) else type(data).__name__
        raise TypeError(f"data: expected (x, y), (x, y, weight) or a TensorDataset, got {got}")
    x, y, weight = (*data, None)[:3]
    for name, tensor in (("x", x), ("y", y), ("weight", weight)):
        if not isinstance(tensor, Tensor) and not (name == "weight" and tensor is None):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
    if x.dim() == 0 or len(x) == 0:
        raise ValueError(f"data: expected at least one row, got x of shape {tuple(x.shape)}")
    return x, y, weight


def _expanded(weight: Tensor | None, y: Tensor) -> Tensor | None:
    """Weights of rows or elements, as one for each element of y."""
    if weight is None:
        return None
    of_rows = weight.shape == y.shape[:1]
    shaped = weight.reshape(-1, *[1] * (y.dim() - 1)) if of_rows else weight
    if shaped.dim() != y.dim() or any(
        w not in (1, n) for w, n in zip(shaped.shape, y.shape, strict=True)
    ):
        raise ValueError(
            f"weight: expected one for each row or element of y, of shape {tuple(y.shape)}, "
            f"got {tuple(weight.shape)}"
        )
    if not bool((weight >= 0).all()) or not bool((weight > 0).any()):
        raise ValueError("weight: expected none below zero and some above, got others")
    return shaped.detach().expand(y.shape)


def design(
    model: Any,
    loss_fn: Any,
    data: Any,
    parameters: Sequence[Tensor],
    batch_size: int | None = None,
) -> Design | NoDesign:
    """The least-squares problem of a model that is affine in its parameters, if it is one.

    Args:
        model: a module, or a function of x.
        loss_fn: a squared error, mean or sum.
        data: as `unpack` takes it.
        parameters: those that may be trained.
        batch_size: how many rows the loss will be given, or None for all.

    Raises:
        TypeError, ValueError: data that do not fit the model.
    """
    x, y, weight = unpack(data)
    loss = squared_error_on(loss_fn, y, batch_size)
    if isinstance(loss, NotSquaredError):
        name = getattr(loss_fn, "__name__", type(loss_fn).__name__)
        return NoDesign(f"{name} is not known to be a squared error: {loss.reason}")
    form = form_of(model, parameters, x)
    if isinstance(form, NoDesign):
        return form
    if form.shape != y.shape:
        raise ValueError(
            f"y: expected the prediction's shape {tuple(form.shape)}, got {tuple(y.shape)}"
        )
    if not form.parameters:
        raise ValueError("model: expected a parameter that is trained, got none that requires grad")
    k = len(form.places)
    target = y.detach().reshape(-1, k)
    if form.offset is not None:
        target = target.double() - form.offset
    weights = _expanded(weight, y)
    weights = None if weights is None else weights.reshape(-1, k)
    rowwise = form.rowwise and len(target) == len(x)
    return Design(
        form.names, form.parameters, form.features, form.places, target, weights, loss.mean, rowwise
    )
