"""What the second derivative of a cost says before the first step.

For a model that is affine in its parameters the cost is a quadratic. Its curvatures are
2 scale s^2, s the singular values of the features, and a step of SGD multiplies what is left of
the way in each direction by 1 - lr curvature. All of it is computed in float64.
"""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn, optim
from torch.func import functional_call

# An answer in epochs beyond this is "never" to a reader.
MOST_EPOCHS = 2**40


@dataclass(frozen=True, eq=False)
class Curvature:
    """The curvatures of the cost ``scale |features parameters - y|^2``, without those that are 0.

    Args:
        features: The derivative of the predictions by the parameters, (n, p).
        y: Targets less the predictions where all parameters are 0, (n,).
        scale: 1 for a sum of squares, 1 / n for a mean.
        curvatures: From the largest, (rank,).
        directions: The combinations of parameters that they belong to, each of length 1, (rank, p).
        optimum: The parameters of least cost, (p,).
    """

    features: Tensor
    y: Tensor
    scale: float
    curvatures: Tensor
    directions: Tensor
    optimum: Tensor

    @property
    def rank(self) -> int:
        return len(self.curvatures)

    @property
    def largest_curvature(self) -> float:
        return self.curvatures[0].item()

    @property
    def smallest_curvature(self) -> float:
        return self.curvatures[-1].item()

    @property
    def condition_number(self) -> float:
        return self.largest_curvature / self.smallest_curvature

    @property
    def slowest_direction(self) -> Tensor:
        return self.directions[-1]

    @property
    def optimal_loss(self) -> float:
        return self.scale * torch.sum((self.features @ self.optimum - self.y) ** 2).item()

    def excess(self, parameters: Tensor) -> float:
        """How far the cost at some parameters is above the least one."""
        off = self.features @ (parameters - self.optimum)
        return self.scale * torch.sum(off**2).item()

    def largest_stable_lr(self, momentum: float = 0.0, nesterov: bool = False) -> float:
        """The rate from which on SGD diverges."""
        over = 1 + 2 * momentum if nesterov else 1.0
        return 2 * (1 + momentum) / (over * self.largest_curvature)

    @property
    def best_lr(self) -> float:
        """The rate, without momentum, at which the slowest direction shrinks most."""
        return 2 / (self.largest_curvature + self.smallest_curvature)

    @property
    def best_momentum(self) -> float:
        """Of the heavy ball, with the rate ``heavy_ball_lr``."""
        root = math.sqrt(self.condition_number)
        return ((root - 1) / (root + 1)) ** 2

    @property
    def heavy_ball_lr(self) -> float:
        roots = math.sqrt(self.largest_curvature) + math.sqrt(self.smallest_curvature)
        return 4 / roots**2

    def epochs_to(self, tolerance: float, optimizer: optim.SGD) -> int | None:
        """Epochs of full-batch SGD until every direction has shrunk to ``tolerance`` of itself.

        None where that takes for ever. The step is a 2 x 2 matrix in each direction; its powers
        are looked through by doubling, then by halving.
        """
        (group,) = optimizer.param_groups
        lr, beta = group["lr"], group["momentum"]
        nesterov = group["nesterov"]
        steps = [_step(lr * one, beta, nesterov) for one in self.curvatures.tolist()]

        def arrived(epochs: int) -> bool:
            left = (np.linalg.matrix_power(step, epochs) @ [1.0, 0.0] for step in steps)
            # With momentum a distance swings through 0, and has arrived when its velocity has too.
            # The tolerance may be such a product itself; a rounding must not cost an epoch.
            seen = 2 if beta else 1
            return all(np.abs(two[:seen]).max() <= tolerance * (1 + 1e-9) for two in left)

        if any(_shrinkage(step) >= 1 for step in steps):
            return None
        high = 1
        while not arrived(high):
            high *= 2
            if high > MOST_EPOCHS:
                return None
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if arrived(middle) else (middle, high)
        return high

    @functools.cached_property
    def standardised(self) -> Curvature:
        """The same with every feature shifted to mean 0 and scaled to standard deviation 1."""
        spread = self.features.std(0, correction=0)
        constant = spread <= 1e-12 * self.features.abs().amax(0)
        moved = (self.features - self.features.mean(0)) / torch.where(constant, 1.0, spread)
        return of_features(torch.where(constant, self.features, moved), self.y, self.scale)


def shrinkage(move: float, momentum: float) -> float:
    """What is left of the way after a step in the long run, ``move`` being lr curvature."""
    return _shrinkage(_step(move, momentum, nesterov=False))


def _shrinkage(step: NDArray[np.float64]) -> float:
    return float(np.abs(np.linalg.eigvals(step)).max())


def _step(move: float, beta: float, nesterov: bool) -> NDArray[np.float64]:
    """What SGD does to (distance from the optimum, lr velocity), ``move`` = lr curvature.

    The velocity becomes beta velocity + gradient; the distance is shortened by it, or by Nesterov's
    gradient + beta velocity.
    """
    velocity = [move, beta]
    if nesterov:
        return np.array([[1 - move - beta * move, -(beta**2)], velocity])
    return np.array([[1 - move, -beta], velocity])


def of_features(features: Tensor, y: Tensor, scale: float) -> Curvature:
    """The curvatures of a least-squares problem, from the singular values of its features."""
    left, singular, right = torch.linalg.svd(features, full_matrices=False)
    smallest = torch.finfo(torch.float64).eps * max(features.shape) * singular[0]
    rank = int(torch.count_nonzero(singular > smallest))
    left, singular, right = left[:, :rank], singular[:rank], right[:rank]
    optimum = right.T @ (left.T @ y / singular)
    return Curvature(features, y, scale, 2 * scale * singular**2, right, optimum)


def curvature(model: nn.Module, loss_fn: nn.MSELoss, data: tuple[Tensor, Tensor]) -> Curvature:
    """The curvatures of a model's cost, the model being affine in its parameters.

    Args:
        model: An affine model, such as ``nn.Linear``.
        loss_fn: Its reduction counts, mean or sum.
        data: The inputs and the targets.

    Returns:
        The `Curvature`; of rank 0 where the cost does not depend on the parameters.

    Example:
        >>> from gdcore.lessons.insight import curvature
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> line = curvature(torch.nn.Linear(1, 1, bias=False), torch.nn.MSELoss(), (x, x))
        >>> f"{line.largest_curvature:.4f} {line.largest_stable_lr():.6f} {line.optimum.item():.1f}"
        '9.3333 0.214286 1.0'
    """
    model = copy.deepcopy(model).double()
    x, y = (values.detach().double() for values in data)
    own = {name: parameter.detach() for name, parameter in model.named_parameters()}
    sizes = [value.numel() for value in own.values()]

    def predicted(parameters: Tensor) -> Tensor:
        parts = parameters.split(sizes)
        values = {
            name: part.reshape(own[name].shape) for name, part in zip(own, parts, strict=True)
        }
        prediction: Tensor = functional_call(model, values, (x,))
        return prediction.flatten()

    # One parameter at 1 and the others at 0 gives a column of the features.
    offset = predicted(torch.zeros(sum(sizes), dtype=torch.float64))
    units = torch.eye(sum(sizes), dtype=torch.float64)
    features = torch.stack([predicted(unit) - offset for unit in units], 1)
    scale = 1.0 if loss_fn.reduction == "sum" else 1 / y.numel()
    return of_features(features, y.flatten() - offset, scale)


def local_curvatures(model: nn.Module, loss_fn: nn.MSELoss, data: tuple[Tensor, Tensor]) -> Tensor:
    """The eigenvalues of the cost's Hessian where the model's parameters are, ascending.

    They hold near there only, for a model that is not affine in its parameters.
    """
    model = copy.deepcopy(model).double()
    x, y = (values.detach().double() for values in data)
    parameters = list(model.parameters())
    cost = loss_fn(model(x), y)
    gradients = torch.autograd.grad(cost, parameters, create_graph=True)
    slopes = torch.cat([gradient.flatten() for gradient in gradients])
    rows = [torch.autograd.grad(slope, parameters, retain_graph=True) for slope in slopes]
    hessian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    eigenvalues: Tensor = torch.linalg.eigvalsh((hessian + hessian.T) / 2)
    return eigenvalues
