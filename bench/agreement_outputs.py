"""What a linear model with several outputs, or after many epochs, must come to: `agreement`'s
bounds, by products."""

from __future__ import annotations

import numpy as np
import torch

from agreement import SUM_FACTOR, UNIT_ROUNDOFF, Expected, evaluate
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


def expected_long(p: Problem, epochs: int) -> Expected:
    """The parameters after many epochs, in closed form and in float64.

    Along each eigenvector of the curvature H the distance from the best parameters shrinks by
    1 - lr λ a step. The roundings of a step are at most those of the first, whose residuals are
    the largest of all.
    """
    phi = torch.cat([p.x.double(), torch.ones(len(p.x), 1, dtype=torch.float64)], 1)
    curvature = (2 / len(phi) * phi.T @ phi).numpy()
    slope = (2 / len(phi) * phi.T @ p.y.double().ravel()).numpy()
    values, vectors = np.linalg.eigh(curvature)
    start = p.flat_start()
    # Where a direction is flat, nothing moves along it.
    flat = values <= 1e-12 * values[-1]
    best = np.where(flat, 0.0, vectors.T @ slope / np.where(flat, 1.0, values))
    distance = vectors.T @ start - best
    there = best + np.where(flat, 1.0, 1 - p.lr * values) ** epochs * distance
    parameters = vectors @ np.where(flat, vectors.T @ start, there)
    first = evaluate(p.affine(), p.targets(), start, mean=True)
    largest = float(np.linalg.norm(start) + np.linalg.norm(distance))
    step = p.lr * float(np.linalg.norm(first.gradient_error)) + 4 * UNIT_ROUNDOFF * largest
    return Expected(None, 0.0, parameters, np.full_like(parameters, epochs * step))
