"""The extreme curvatures of any model's loss at its parameters, by Hessian-vector products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import reference
from .._recognition.losses import NotSquaredError, squared_error_on

__all__ = ["Extremes", "hessian_extremes"]

_ALL = 256
"""Parameters up to which the whole Hessian is formed."""

_STEPS = 128


class Extremes(NamedTuple):
    """Of a symmetric matrix."""

    largest: float
    smallest: float
    """Of those that are not zero; below zero where the loss bends down."""
    rank: int
    """How many are not zero, among those that were found."""
    complete: bool
    """Whether all were found."""


def _loss(model: Any, loss_fn: Any, x: Any, y: Tensor, weight: Tensor | None) -> Tensor:
    if isinstance(model, torch.nn.Module):  # whose forward may write to its buffers
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        prediction = torch.func.functional_call(model, buffers, (x,))
    else:
        prediction = model(x)
    if weight is None:
        value: Tensor = loss_fn(prediction, y)
    else:
        known = squared_error_on(loss_fn, y)
        if isinstance(known, NotSquaredError):
            raise ValueError(f"loss_fn: expected a squared error beside weights; {known.reason}")
        reduction = "mean" if known.mean else "sum"
        value = reference.mse_loss(prediction, y, reduction, weight)
    if not isinstance(value, Tensor) or value.dim() != 0:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"loss_fn: expected a loss of shape (), got {got}")
    return value


def _products(loss: Tensor, parameters: Sequence[Tensor]) -> tuple[int, Callable[[Tensor], Tensor]]:
    """How many parameters, and v → H v in float64, by differentiating ∇loss · v."""
    grads = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    gradient = torch.cat([grad.reshape(-1) for grad in grads])

    def product(v: Tensor) -> Tensor:
        if not gradient.requires_grad:  # the loss is linear
            return torch.zeros_like(v)
        rows = torch.autograd.grad(
            gradient,
            parameters,
            v.to(gradient),
            retain_graph=True,
            materialize_grads=True,
        )
        return torch.cat([row.reshape(-1) for row in rows]).double().cpu()

    return gradient.numel(), product


def _lanczos(size: int, product: Callable[[Tensor], Tensor]) -> Tensor:
    """Ritz values of a symmetric matrix, each vector kept orthogonal to all before."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(size, generator=generator, dtype=torch.float64, device="cpu")
    basis = (v / torch.linalg.vector_norm(v))[None]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        w = product(basis[-1])
        diagonal.append(float(w @ basis[-1]))
        for _ in range(2):
            w = w - basis.T @ (basis @ w)
        beta = float(torch.linalg.vector_norm(w))
        scale = max(map(abs, diagonal + beside), default=0.0)
        if len(basis) == min(size, _STEPS) or beta <= 1e-12 * scale or beta == 0:
            break
        beside.append(beta)
        basis = torch.cat([basis, (w / beta)[None]])
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64, device="cpu"))
    off = torch.tensor(beside, dtype=torch.float64, device="cpu")
    matrix.diagonal(1).copy_(off)
    matrix.diagonal(-1).copy_(off)
    values: Tensor = torch.linalg.eigvalsh(matrix)
    return values


def hessian_extremes(
    model: Any,
    loss_fn: Any,
    x: Any,
    y: Tensor,
    weight: Tensor | None,
    parameters: Sequence[Tensor],
) -> Extremes:
    """The largest and smallest curvature at the parameters: all of them up to 256 parameters, the
    extremes by Lanczos beyond.
    """
    if not parameters:
        raise ValueError("model: expected a parameter that requires grad, got none")
    devices = {p.device.index for p in parameters if p.is_cuda}
    with torch.enable_grad(), torch.random.fork_rng(devices=devices):
        loss = _loss(model, loss_fn, x, y, weight)
        if not loss.isfinite():
            raise ValueError(f"data: expected a finite loss, got {loss.item()}")
        if not loss.requires_grad:
            raise ValueError("model: expected a loss that depends on its parameters, got none")
        size, product = _products(loss, parameters)
        if size <= _ALL:
            columns = [product(e) for e in torch.eye(size, dtype=torch.float64, device="cpu")]
            matrix = torch.stack(columns)
            values = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
        else:
            values = _lanczos(size, product)
    noise = size * torch.finfo(loss.dtype).eps * float(values.abs().max())
    nonzero = values[values.abs() > noise]
    if not len(nonzero):
        return Extremes(0.0, 0.0, 0, size <= _ALL)
    return Extremes(float(nonzero[-1]), float(nonzero[0]), len(nonzero), size <= _ALL)
