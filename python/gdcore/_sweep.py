"""Many trainings at once: every combination of learning rates, momenta and starts."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ._insight.design import Design, NoDesign, design
from ._insight.spectrum import MOST_EXACT, exact_spectrum
from ._insight.sweep import Run, Sweep, features, sgd_runs
from ._insight.sweep_runs import batches, closed_form, on_reduced, over_rows
from ._insight.updates import kind_of, merged
from ._recognition.models import LossFunction

__all__ = ["Run", "Sweep", "sweep"]

Initial = Mapping[str, Tensor | float]


def sweep(
    model: Any,
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer,
    data: Any,
    *,
    epochs: int,
    lr: Sequence[float] | None = None,
    momentum: Sequence[float] | None = None,
    weight_decay: Sequence[float] | None = None,
    initial: Sequence[Initial] | None = None,
    method: str = "auto",
    batch_size: int | None = None,
    shuffle: bool = False,
    generator: torch.Generator | None = None,
) -> Sweep:
    """Train with every combination of settings at once, each run as `gdcore.fit` with them would.

    The optimizer is the pattern for what is not varied; its state does not count. Neither it nor
    the model is changed: `Sweep.apply` gives the model a run's parameters. A run that diverges is
    marked and disturbs no other.

    Full batches are *compressed*: a few rows stand for all, in float64, whatever their number, and
    plain SGD over them has a closed form. Otherwise each step passes once over its rows for all
    runs (*stepwise*), in the parameters' dtype.

    Args:
        model: affine in its parameters.
        loss_fn: a squared error, mean or sum: ``nn.MSELoss``, ``F.mse_loss``, gdcore's, or a
            function that computes one.
        optimizer: SGD, RMSprop, Adam or AdamW, of torch or gdcore, over the model's parameters.
        data: ``(x, y)``, ``(x, y, weight)`` or a ``TensorDataset`` of these.
        epochs: how many updates of the full batch, or passes over the batches.
        lr: learning rates.
        momentum: momenta, of SGD or RMSprop.
        weight_decay: weight decays.
        initial: starts, each a mapping from parameters' names to values or to one number for all
            elements; parameters that are not named start as they are.
        method: ``"auto"``, ``"compressed"`` or ``"stepwise"``.
        batch_size: rows of a step; all if not given.
        shuffle: draw the rows of each epoch in a new order, the same for all runs.
        generator: for the orders.

    Returns:
        The `Sweep`, a sequence of `Run`.

    Raises:
        TypeError: a model, loss or optimizer that cannot be swept.
        ValueError: an empty list, a setting that the optimizer does not have, data that do not fit.

    Example:
        >>> x = torch.linspace(-1, 1, 20)[:, None]
        >>> model = gdcore.nn.LinearRegression()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> rates, momenta = [0.01, 0.1, 1.0], [0.0, 0.9]
        >>> found = gdcore.sweep(model, torch.nn.MSELoss(), optimizer, (x, 3 * x + 1), epochs=200,
        ...                      lr=rates, momentum=momenta)
        >>> len(found)
        6
        >>> found.apply(found.best())
        >>> round(model(torch.tensor([[1.0]])).item(), 3)
        4.0

    Reference:
        `gdcore.curvature` for the closed form.
    """
    kind = kind_of(optimizer)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    _check(epochs, method, batch_size)
    problem = design(model, loss_fn, data, trained, batch_size)
    if isinstance(problem, NoDesign):
        raise TypeError(
            "model: expected one that is affine in its parameters, with a squared error; "
            f"{problem.reason}"
        )
    if batch_size is not None and not problem.rowwise:
        raise ValueError("batch_size: expected None for a model that does not treat rows apart")
    lists = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    varied = _varied(lists, optimizer)
    starts = _starts(problem, initial)
    if initial is not None:
        varied["initial"] = list(range(len(initial)))
    combinations = list(itertools.product(*varied.values()))
    settings = {key: [row[i] for row in combinations] for i, key in enumerate(varied)}
    runs = len(combinations)
    theta = starts[
        ..., torch.tensor(settings.get("initial", [0] * runs), dtype=torch.int64, device="cpu")
    ].contiguous()
    start = time.perf_counter()
    small = features(problem) <= MOST_EXACT
    compressed = method == "compressed" or (method == "auto" and batch_size is None and small)
    if compressed and not small:
        raise ValueError(f"method: expected stepwise for {features(problem)} features")
    dtype = problem.parameters[0].dtype
    sgd = sgd_runs(optimizer, problem, settings, runs) if kind == "sgd" else None
    if compressed and sgd is not None:
        spectrum = exact_spectrum(problem.reduce(), problem.theta())
        losses, theta = closed_form(spectrum, theta, sgd, epochs)
    else:
        options = _options(optimizer, problem, settings)
        if compressed:
            losses, theta = on_reduced(problem.reduce(), theta, kind, options, epochs)
        else:
            steps = (batches(problem, batch_size, shuffle, generator) for _ in range(epochs))
            losses, theta = over_rows(problem, theta, kind, options, steps, dtype)
    lost = ~losses.to(dtype).isfinite()
    diverged = torch.where(lost.any(0), lost.int().argmax(0), -1)
    return Sweep(
        varied,
        settings,
        losses[:-1].T,
        losses[-1],
        diverged,
        "compressed" if compressed else "stepwise",
        time.perf_counter() - start,
        theta,
        problem,
        optimizer,
    )


def _check(epochs: Any, method: Any, batch_size: Any) -> None:
    for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 1)):
        if value is None and name == "batch_size":
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    if method not in ("auto", "compressed", "stepwise"):
        raise ValueError(f"method: expected auto, compressed or stepwise, got {method!r}")
    if method == "compressed" and batch_size is not None:
        raise ValueError("method: expected stepwise with a batch_size, got compressed")


def _varied(
    lists: dict[str, Sequence[float] | None], optimizer: torch.optim.Optimizer
) -> dict[str, list[float]]:
    varied = {}
    for name, values in lists.items():
        if values is None:
            continue
        if any(name not in group for group in optimizer.param_groups):
            raise ValueError(
                f"{name}: expected a setting of the optimizer, got {type(optimizer).__name__}, "
                "which has none"
            )
        numbers = _numbers(name, values)
        if not numbers:
            raise ValueError(f"{name}: expected at least one value, got an empty list")
        for number in numbers:
            if not 0 <= number < math.inf:
                raise ValueError(f"{name}: expected finite values from 0, got {number}")
            if name == "momentum" and number == 0 and optimizer.param_groups[0].get("nesterov"):
                raise ValueError("momentum: expected values above 0 with nesterov=True, got 0")
        varied[name] = numbers
    return varied


def _numbers(name: str, values: Any) -> list[float]:
    try:
        listed = list(values)
    except TypeError:
        listed = None
    if listed is None or isinstance(values, str):
        raise TypeError(f"{name}: expected a list of numbers, got {type(values).__name__}")
    for value in listed:
        if not hasattr(value, "__float__"):
            raise TypeError(f"{name}: expected a list of numbers, got {value!r} in it")
    return [float(value) for value in listed]


def _starts(problem: Design, initial: Sequence[Initial] | None) -> Tensor:
    """Θ (q, k, starts)."""
    if initial is None:
        return problem.theta()[..., None]
    if not isinstance(initial, Sequence) or not all(isinstance(s, Mapping) for s in initial):
        got = type(initial).__name__
        raise TypeError(f"initial: expected a list of mappings from names to values, got {got}")
    if len(initial) == 0:
        raise ValueError("initial: expected at least one start, got an empty list")
    columns = []
    for start in initial:
        values = dict(zip(problem.names, problem.parameters, strict=True))
        for name, value in start.items():
            if name not in values:
                raise ValueError(
                    f"initial: expected names among {', '.join(problem.names)}, got {name!r}"
                )
            shape = values[name].shape
            given = torch.as_tensor(value, dtype=torch.float64, device="cpu").detach()
            if given.dim() > 0 and given.shape != shape:
                raise ValueError(
                    f"initial: expected {name} of shape {tuple(shape)} or a number, "
                    f"got shape {tuple(given.shape)}"
                )
            values[name] = given.expand(shape)
        columns.append(problem.theta(list(values.values())))
    return torch.stack(columns, -1)


def _options(optimizer: Any, problem: Design, settings: dict[str, list[float]]) -> dict[str, Any]:
    """The settings as `Updates` takes them: numbers, or tensors over parameters or runs."""
    owners = problem.owners()
    places = [(p, torch.nonzero(owners == i).flatten()) for i, p in enumerate(problem.parameters)]
    options = merged(optimizer, places, problem.shape)
    for key, values in settings.items():
        if key != "initial":
            options[key] = torch.tensor(values, dtype=torch.float64, device="cpu")
    return options
