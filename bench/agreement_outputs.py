"""What a linear model with several outputs must come to: `agreement`'s bounds, by products."""

from __future__ import annotations

import numpy as np
import torch

from agreement import SUM_FACTOR, UNIT_ROUNDOFF, Expected
from linear import Problem


def expected_outputs(p: Problem, epochs: int) -> Expected:
    """After so many epochs of the mean over rows and outputs; weights (k, d), then biases (k,).

    The columns of x have about unit variance, so a rate of 0.01 lengthens no error.
    """
    u, scale = UNIT_ROUNDOFF, 1 / p.y.numel()
    x, y = p.x.double(), p.y.double()
    ones = torch.ones(len(x), 1, dtype=torch.float64)
    phi = torch.cat([x, ones], 1)
    weight, bias = (value.detach().double() for value in p.model().parameters())
    theta = torch.cat([weight, bias[:, None]], 1).T
    roundings = phi.shape[1] + 1
    summing = (SUM_FACTOR * np.sqrt(len(x)) + 3) * u
    length = phi.norm(dim=1, keepdim=True)
    drift = 0.0
    for _ in range(epochs):
        prediction = phi @ theta
        residual = prediction - y
        dr = u * (roundings * phi.abs() @ theta.abs() + prediction.abs() + y.abs())
        gradient = 2 * scale * phi.T @ residual
        error = 2 * scale * phi.abs().T @ (dr + summing * residual.abs())
        loss = scale * float(residual.square().sum())
        dr += drift * length
        loss_error = scale * float(((2 * residual.abs() + dr) * dr).sum()) + summing * loss
        update = p.lr * gradient
        drift += float((p.lr * error + 2 * u * (theta.abs() + update.abs())).norm())
        theta = theta - update
    values = torch.cat([theta[:-1].T.reshape(-1), theta[-1]]).numpy()
    return Expected(loss, loss_error, values, np.full_like(values, drift))
