"""A training as JAX does it best: ``jit`` of a ``lax.scan`` over the epochs.

JAX is imported only where a contender is built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from available import JAX, installed
from case import Contender

Predict = Callable[[Any, Any], Any]


def linear(parameters: Any, x: Any) -> Any:
    """``nn.Linear``: weight (k, d) and bias (k,). A line by ``*``, which XLA does faster."""
    weight, bias = parameters
    return x * weight + bias if weight.shape == (1, 1) else x @ weight.T + bias


def polynomial(parameters: Any, x: Any) -> Any:
    """By Horner's rule, which XLA keeps in registers; coefficients from the lowest."""
    (coefficients,) = parameters
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def legendre(parameters: Any, x: Any) -> Any:
    """``a + b P3(c + d x)``."""
    a, b, c, d = parameters
    u = c + d * x
    return a + b * (2.5 * u * u - 1.5) * u


def scan(
    predict: Predict,
    start: Sequence[Any],
    x: Tensor,
    y: Tensor,
    lr: float,
    epochs: int,
    *,
    mean: bool = True,
) -> list[Contender]:
    """Full-batch descent from copies of ``start``; the contender, or none without JAX."""
    if not installed(JAX):
        return []
    import jax
    import jax.numpy as jnp

    def loss_of(parameters: Any, x: Any, y: Any) -> Any:
        squares = jnp.square(predict(parameters, x) - y)
        return squares.mean() if mean else squares.sum()

    @jax.jit
    def train(parameters: Any, x: Any, y: Any) -> Any:
        def epoch(parameters: Any, _: None) -> Any:
            loss, gradients = jax.value_and_grad(loss_of)(parameters, x, y)
            return [p - lr * g for p, g in zip(parameters, gradients, strict=True)], loss

        return jax.lax.scan(epoch, parameters, length=epochs)

    inputs, targets = jnp.asarray(x.numpy()), jnp.asarray(y.numpy())
    first = [jnp.asarray(np.asarray(value, dtype=np.float32)) for value in start]

    def run() -> Any:
        parameters, losses = jax.block_until_ready(train(first, inputs, targets))
        return losses[-1], *parameters

    return [Contender(JAX, run, compiles=True)]


def sweep(
    start: Sequence[Any], x: Tensor, y: Tensor, rates: Sequence[float], epochs: int
) -> list[Contender]:
    """`linear` from one start with every rate at once: ``vmap`` of a scan, or none without JAX.

    Its parameters have the runs as their first dimension.
    """
    if not installed(JAX):
        return []
    import jax
    import jax.numpy as jnp

    def loss_of(parameters: Any, x: Any, y: Any) -> Any:
        return jnp.square(linear(parameters, x) - y).mean()

    def train(rate: Any, parameters: Any, x: Any, y: Any) -> Any:
        def epoch(parameters: Any, _: None) -> Any:
            loss, gradients = jax.value_and_grad(loss_of)(parameters, x, y)
            return [p - rate * g for p, g in zip(parameters, gradients, strict=True)], loss

        return jax.lax.scan(epoch, parameters, length=epochs)

    together = jax.jit(jax.vmap(train, in_axes=(0, None, None, None)))
    first = [jnp.asarray(np.asarray(value, dtype=np.float32)) for value in start]
    given = jnp.asarray(np.asarray(rates, dtype=np.float32))
    inputs, targets = jnp.asarray(x.numpy()), jnp.asarray(y.numpy())

    def run() -> Any:
        parameters, losses = jax.block_until_ready(together(given, first, inputs, targets))
        return losses, *parameters

    return [Contender(JAX, run, compiles=True)]
