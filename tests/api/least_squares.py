"""Explicit matrices as the oracle of curvature and sweeps, and the loop over the rows."""

import inspect
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import gdcore

Matrix = NDArray[np.float64]


def stepwise(model: Any, loss_fn: Any, optimizer: Any, data: Any, **options: Any) -> gdcore.History:
    """`gdcore.fit` over all rows at every step."""
    if "method" in inspect.signature(gdcore.fit).parameters:
        options["method"] = "stepwise"
    return gdcore.fit(model, loss_fn, optimizer, data, **options)


def matrix_of(model: nn.Module, x: Tensor) -> Matrix:
    """Φ (elements of the prediction, parameters) by autograd, one row at a time."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for element in model(x).reshape(-1):
        grads = torch.autograd.grad(element, parameters, retain_graph=True)
        rows.append(torch.cat([grad.reshape(-1) for grad in grads]))
    return np.asarray(torch.stack(rows).double().cpu().numpy())


def curvatures_of(matrix: Matrix, scale: float) -> Matrix:
    """2 · scale · S², the largest first."""
    return np.asarray(2 * scale * np.linalg.svd(matrix, compute_uv=False) ** 2)


def flat(values: dict[str, Tensor]) -> Matrix:
    return np.concatenate([value.cpu().numpy().ravel() for value in values.values()])


EPS = float(np.finfo(np.float64).eps)
