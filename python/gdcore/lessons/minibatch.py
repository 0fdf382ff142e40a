"""Seed 004, section 5: minibatches in order, shuffled, and from a custom Dataset."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Dataset, TensorDataset

from gdcore import train_step
from gdcore.nn import LinearRegression

from . import pictures, stories
from .agreement import Disagreement, close_lines, compare_digits
from .golden import golden, golden_settings
from .lesson import Lesson, Run, Settings, numbers
from .multivariate import descend, parameter_line, shown_cost
from .rounding import compare_versions

Batch = tuple[Tensor, Tensor]

IN_ORDER, SHUFFLED, CUSTOM = "in order", "shuffled", "custom Dataset"
OWN_SEED = 1


class Scores(Dataset[Batch]):
    """A dataset of one's own: how many samples there are, and the sample of an index."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Batch:
        return self.x[index], self.y[index]


def batch_size() -> int:
    size: int = golden("minibatch")["batch_size"]
    return size


def loaders(settings: Settings) -> dict[str, Iterable[Batch]]:
    """The data in batches, three ways; both shuffled ones draw the same order."""
    x, y = settings.x, settings.y
    seed = OWN_SEED if settings.seed is None else settings.seed

    def shuffled(dataset: Dataset[Batch]) -> DataLoader[Batch]:
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(dataset, batch_size=batch_size(), shuffle=True, generator=generator)

    return {
        IN_ORDER: list(zip(x.split(batch_size()), y.split(batch_size()), strict=True)),
        SHUFFLED: shuffled(TensorDataset(x, y)),  # type: ignore[arg-type]
        CUSTOM: shuffled(Scores(x, y)),
    }


def manual(settings: Settings) -> Run:
    run = Run()
    ends: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for series, batches in loaders(settings).items():
        W, b = settings.start((1, settings.x.shape[1]), (1,))
        step = itertools.count()
        for epoch in range(settings.epochs):
            for x, y in batches:
                error = x @ W.T + b - y
                cost = torch.mean(error**2)
                slope = 2 * error * (1 / len(y))
                descend(W, slope.T @ x, settings.lr)
                descend(b, slope.sum(0), settings.lr)
                record(run, settings, series, epoch, next(step), cost)
        ends[series] = (W, b, cost)
    return finish(run, ends)


def autograd(settings: Settings) -> Run:
    run = Run()
    ends: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for series, batches in loaders(settings).items():
        model = new_model(settings)
        optimizer = optim.SGD(model.parameters(), lr=settings.lr)
        step = itertools.count()
        for epoch in range(settings.epochs):
            for x, y in batches:
                prediction = model(x)
                cost = F.mse_loss(prediction, y)
                optimizer.zero_grad()
                cost.backward()
                optimizer.step()
                record(run, settings, series, epoch, next(step), cost)
        ends[series] = (model.weight, model.bias, cost)
    return finish(run, ends)


def fused(settings: Settings) -> Run:
    run = Run()
    ends: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for series, batches in loaders(settings).items():
        model = new_model(settings)
        optimizer = optim.SGD(model.parameters(), lr=settings.lr)
        train = train_step(model, nn.MSELoss(), optimizer)
        step = itertools.count()
        for epoch in range(settings.epochs):
            for x, y in batches:
                cost = train(x, y)
                record(run, settings, series, epoch, next(step), cost)
        ends[series] = (model.weight, model.bias, cost)
    return finish(run, ends)


def new_model(settings: Settings) -> LinearRegression:
    W, b = settings.start((1, settings.x.shape[1]), (1,))
    model = LinearRegression(settings.x.shape[1], 1).to(settings.dtype)
    model.load_state_dict({"weight": W, "bias": b})
    return model


def record(run: Run, settings: Settings, series: str, epoch: int, step: int, cost: Tensor) -> None:
    if epoch % settings.every == 0:
        run.record(step, series, cost=cost)


def finish(run: Run, ends: dict[str, tuple[Tensor, Tensor, Tensor]]) -> Run:
    """The parameters of the first way under their own names, those of the others prefixed."""
    final: dict[str, Tensor] = {}
    for series, (weight, bias, cost) in ends.items():
        if series == IN_ORDER:
            final |= {"weight": weight, "bias": bias, "cost": cost}
        else:
            final |= {f"{series} weight": weight, f"{series} bias": bias}
    return run.finish(**final)


def batches_per_epoch(settings: Settings) -> int:
    return math.ceil(len(settings.y) / batch_size())


def epoch_lines(costs: Sequence[float], settings: Settings) -> list[str]:
    """A line per epoch with the cost of each batch, or their mean where they are many."""
    size = batches_per_epoch(settings)
    lines = []
    for index, start in enumerate(range(0, len(costs), size)):
        batch_costs = costs[start : start + size]
        if size <= 5:
            shown = " ".join(map(shown_cost, batch_costs))
        else:
            shown = f"{shown_cost(statistics.fmean(batch_costs))} (mean of {size} batches)"
        epoch = index * settings.every
        lines.append(f"Epoch {epoch:4d}/{settings.epochs - 1} Cost: {shown}")
    return lines


def lines(run: Run, settings: Settings) -> list[str]:
    """Every epoch in order; of the shuffled ways the last epoch; and the parameters."""
    shown = epoch_lines([row.cost for row in run.series(IN_ORDER)], settings)
    for series in (SHUFFLED, CUSTOM):
        last = epoch_lines([row.cost for row in run.series(series)], settings)[-1:]
        shown += [f"{line} ({series})" for line in last]
    if run.diverged is not None:
        return shown
    return [*shown, parameter_line({name: run.final[name] for name in ("weight", "bias")})]


def check(backend: str, run: Run, lines: list[str]) -> Disagreement | None:
    """In order against the golden costs; the other ways against a DataLoader loop by autograd."""
    entry, settings = golden("minibatch"), golden_settings("minibatch")
    expected = epoch_lines(entry["step_losses"], settings)
    ends = {name: entry["final"][name] for name in ("weight", "bias")}
    found = close_lines(expected, lines[: len(expected)])
    found = found or close_lines([parameter_line(ends)], lines[-1:])
    if backend != "fused":
        costs = [row.cost for row in run.series(IN_ORDER)]
        found = found or compare_digits("cost of step", entry["step_losses"], costs)
        for name, value in ends.items():
            found = found or compare_digits(name, numbers(value), numbers(run.final[name]))
    reference = autograd(settings)
    for series in (SHUFFLED, CUSTOM):
        # The same seed shuffles both ways alike, so the custom Dataset must repeat the other.
        want = epoch_lines([row.cost for row in reference.series(SHUFFLED)], settings)
        have = epoch_lines([row.cost for row in run.series(series)], settings)
        found = found or prefixed(series, close_lines(want, have))
    return found


def prefixed(series: str, found: Disagreement | None) -> Disagreement | None:
    return found and replace(found, where=f"{series}, {found.where}")


MINIBATCH = Lesson(
    name="minibatch",
    title="minibatches of two: in order, shuffled, and from a custom Dataset",
    teaches="Each update sees a few samples only: it is cheaper and wanders, since every batch has "
    "a best fit of its own. A DataLoader shuffles and batches; any class that knows its length "
    "and its samples can be a Dataset.",
    versions={"manual": manual, "autograd": autograd, "fused": fused},
    settings=lambda: golden_settings("minibatch"),
    lines=lines,
    check=check,
    compare=compare_versions(batches=batches_per_epoch),
    draw=pictures.batch_costs,
    says=stories.batches(batch_size),
    features=None,
)
