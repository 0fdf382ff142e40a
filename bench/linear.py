"""A random linear problem, in float32 for contenders and in float64 for comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agreement import Affine, Array, as_float64


@dataclass(frozen=True)
class Problem:
    """A random plane with noise, and the start that ``nn.Linear`` draws after ``seed``.

    Args:
        x: Features, (n, d).
        y: Targets, (n, k).
        seed: What the global generator is set to before a model is made.
        lr: The learning rate.
    """

    x: Tensor
    y: Tensor
    seed: int
    lr: float

    @classmethod
    def random(cls, n: int, d: int, seed: int, lr: float = 0.01, outputs: int = 1) -> Problem:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, d, generator=generator)
        weight = torch.randn(d, outputs, generator=generator)
        noise = torch.randn(n, outputs, generator=generator)
        return cls(x, x @ weight + 1 + 0.1 * noise, seed, lr)

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape[0], self.x.shape[1]

    @property
    def read_bytes(self) -> int:
        """The data: what a step must read at least."""
        return (self.x.numel() + self.y.numel()) * self.x.element_size()

    @property
    def multiply_adds(self) -> int:
        """Those of the two products of a step: predictions and gradients."""
        return 2 * self.x.numel() * self.y.shape[1]

    def seed_start(self) -> None:
        torch.manual_seed(self.seed)

    def model(self) -> nn.Linear:
        """A model at the start."""
        self.seed_start()
        return nn.Linear(self.shape[1], self.y.shape[1])

    def start(self) -> list[NDArray[np.float32]]:
        """Copies of the model's weight and bias at the start, flat."""
        return [start.detach().numpy().ravel().copy() for start in self.model().parameters()]

    def affine(self) -> Affine:
        return Affine(self.x.numpy(), intercept=True)

    def targets(self) -> Array:
        return as_float64(self.y).ravel()

    def flat_start(self) -> Array:
        return np.concatenate([as_float64(start) for start in self.start()])
