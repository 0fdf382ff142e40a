"""Whole trainings of any module: as everybody writes them, and by ``gdcore.fit``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

import gdcore
from agreement import Array, Model, expected_descent
from case import OURS, Case, Check, Contender, Limit

Run = Callable[[], Any]

FIT = "gdcore.fit"
FIT_ALONE = "gdcore, call alone"
BY_HAND = "by hand"
NUMPY = "NumPy"
# Every epoch passes over all rows, so that a step is what is timed.
STEPWISE = {"method": "stepwise"}
# Epochs of trainings that would take too long with all of theirs: so many that the making of model
# and optimizer does not weigh.
FEW = 100
EAGER: dict[str, dict[str, bool]] = {
    "eager": {},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
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
        options: Further arguments of ``gdcore.fit``.
    """

    make: Callable[[], nn.Module]
    loss_fn: nn.MSELoss
    x: Tensor
    y: Tensor
    lr: float
    options: Mapping[str, Any] = field(default_factory=dict)

    def eager(self, epochs: int, options: Mapping[str, bool]) -> Run:
        """The loop that everybody writes, with the making of model and optimizer."""

        def run() -> Any:
            model = self.make()
            optimizer = torch.optim.SGD(model.parameters(), lr=self.lr, **options)
            return self._loop(model, optimizer, epochs)

        return run

    def eager_alone(self, epochs: int) -> Contender:
        """The loop by itself; the model and the optimizer have been made before."""
        return self._alone("eager", self._loop, epochs)

    def fit(self, epochs: int) -> Run:
        """The same in one call, with the making of model and optimizer."""

        def run() -> Any:
            model = self.make()
            optimizer = torch.optim.SGD(model.parameters(), lr=self.lr)
            return self._fit(model, optimizer, epochs)

        return run

    def fit_alone(self, epochs: int) -> Contender:
        """The call by itself; the model and the optimizer have been made before."""
        return self._alone(FIT_ALONE, self._fit, epochs)

    def _alone(self, name: str, train: Callable[..., Any], epochs: int) -> Contender:
        model = self.make()
        optimizer = torch.optim.SGD(model.parameters(), lr=self.lr)

        def reset() -> None:
            model.load_state_dict(self.make().state_dict())

        return Contender(name, lambda: train(model, optimizer, epochs), reset=reset)

    def _loop(self, model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> Any:
        loss_fn, x, y = self.loss_fn, self.x, self.y
        for _ in range(epochs):
            loss = loss_fn(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss, *model.parameters()

    def _fit(self, model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> Any:
        data = (self.x, self.y)
        history = gdcore.fit(model, self.loss_fn, optimizer, data, epochs=epochs, **self.options)
        return history.loss[-1], *model.parameters()


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
    limit: Limit | None = None,
    work: float = 0.0,
    at_end: Iterable[Contender] = (),
    few: int | None = None,
    missing: Mapping[str, str] | None = None,
) -> Case:
    """Trainings of so many epochs, compared after one epoch, after ten and at the end.

    Args:
        at_end: Contenders that are compared at the end only, as each length compiles anew.
        few: The epochs of contenders that are not gdcore's, where all would take too long; times
            are then for as many epochs as gdcore does.
        missing: Why a contender does not take part.
    """
    units = epochs if unit == "epoch" else 1
    short = epochs if few is None else min(few, epochs)
    steps = sorted({1, min(10, short), short, epochs})
    expected = expected_descent(model, y, start, lr=lr, mean=mean, steps=steps)

    def whole(one: Contender) -> bool:
        return short == epochs or one.name.startswith(OURS)

    timed = [one for one in contenders(epochs) if whole(one)]
    if short < epochs:
        part = units * short / epochs
        timed += [replace(one, units=part) for one in contenders(short) if not whole(one)]
    checks = []
    for step in steps:
        if step == epochs:
            checking = [one for one in timed if whole(one)]
        elif step == short:
            checking = [one for one in timed if not whole(one)]
        else:
            checking = list(contenders(step))
        checks.append(Check(checking, 1, expected[step], f"at epoch {step}"))
    timed += at_end
    checks.append(Check(list(at_end), 1, expected[epochs], f"at epoch {epochs}"))
    return Case(timed, checks, unit, units, limit, work, dict(missing or {}))
