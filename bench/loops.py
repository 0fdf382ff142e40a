"""Whole trainings of any module: as everybody writes them, and by ``gdcore.fit``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import gdcore
from agreement import Array, Model, expected_descent
from timing import Case, Check, Contender

Run = Callable[[], Any]

FIT = "gdcore.fit"
FIT_ALONE = "gdcore.fit, the call alone"
EAGER: dict[str, dict[str, bool]] = {
    "eager": {},
    "eager, foreach=True": {"foreach": True},
    "eager, fused=True": {"fused": True},
}


@dataclass(frozen=True)
class Training:
    """What a user trains.

    Args:
        make: Makes a new model at the start.
        loss_fn: ``nn.MSELoss``.
        x: What the model takes.
        y: Its targets.
        lr: The learning rate of ``torch.optim.SGD``.
    """

    make: Callable[[], nn.Module]
    loss_fn: nn.MSELoss
    x: Tensor
    y: Tensor
    lr: float

    def eager(self, epochs: int, options: Mapping[str, bool]) -> Run:
        """The loop that everybody writes, with the making of model and optimizer."""
        make, loss_fn, x, y = self.make, self.loss_fn, self.x, self.y

        def run() -> Any:
            model = make()
            optimizer = torch.optim.SGD(model.parameters(), lr=self.lr, **options)
            for _ in range(epochs):
                loss = loss_fn(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return loss, *model.parameters()

        return run

    def fit(self, epochs: int) -> Run:
        """The same in one call, with the making of model and optimizer."""

        def run() -> Any:
            model = self.make()
            optimizer = torch.optim.SGD(model.parameters(), lr=self.lr)
            data = (self.x, self.y)
            history = gdcore.fit(model, self.loss_fn, optimizer, data, epochs=epochs)
            return history.loss[-1], *model.parameters()

        return run

    def fit_alone(self, epochs: int) -> Contender:
        """The call by itself; the model and the optimizer have been made before."""
        model = self.make()
        optimizer = torch.optim.SGD(model.parameters(), lr=self.lr)

        def run() -> Any:
            data = (self.x, self.y)
            history = gdcore.fit(model, self.loss_fn, optimizer, data, epochs=epochs)
            return history.loss[-1], *model.parameters()

        def reset() -> None:
            model.load_state_dict(self.make().state_dict())

        return Contender(FIT_ALONE, run, reset=reset)


def descent_case(
    contenders: Callable[[int], Sequence[Contender]],
    epochs: int,
    model: Model,
    y: Array,
    start: Array,
    lr: float,
    *,
    mean: bool,
    unit: str = "run",
    read_bytes: int | None = None,
    probe: Tensor | None = None,
) -> Case:
    """Trainings of so many epochs, compared after one epoch, after ten and at the end."""
    steps = sorted({1, min(10, epochs), epochs})
    expected = expected_descent(model, y, start, lr=lr, mean=mean, steps=steps)
    checks = [Check(contenders(step), 1, expected[step], f"at epoch {step}") for step in steps]
    units = epochs if unit == "epoch" else 1
    return Case(checks[-1].contenders, checks, unit, units, read_bytes, probe)
