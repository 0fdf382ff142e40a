"""Batches of data whose rows are several rows of features each."""

from typing import Any

import torch

from .._native.runners import Ran, Runner
from .._native.shuffle import Order, rows_in

__all__ = ["StackedRunner"]


class StackedRunner:
    """A runner over rows of features, told of the rows of x that they belong to.

    With 0 of them nobody knows what belongs to what: then all rows are taken at once, as they lie.
    """

    def __init__(self, runner: Runner, stack: int) -> None:
        self._runner, self._stack = runner, stack
        self.method = runner.method

    def run(
        self,
        epochs: int,
        *,
        order: Order | None = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> Ran:
        stack = self._stack
        if order is not None:
            assert stack > 0, "an order of rows that do not stand alone"
            first = rows_in(order)[:, None] * stack
            order = (first + torch.arange(stack, device="cpu")).reshape(-1)
        size = None if batch_size is None else batch_size * stack or None
        return self._runner.run(epochs, order=order, batch_size=size, **options)

    def show(self) -> None:
        self._runner.show()

    @property
    def largest_stable_lr(self) -> float | None:
        return self._runner.largest_stable_lr

    def surely_stable(self, rate: float) -> bool:
        return self._runner.surely_stable(rate)
