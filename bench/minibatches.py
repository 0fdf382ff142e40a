"""One epoch of minibatches, in the order that PyTorch's ``DataLoader`` gives them."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gdcore
import limits
from agreement import SUM_FACTOR, UNIT_ROUNDOFF, Expected, Outcome, outcome
from available import SCIKIT_LEARN, installed, missing
from case import Case, Check, Contender, Limit, Planned
from linear import Problem
from loops import BY_HAND, FIT

SUITE = "minibatches"
INDEXED = "eager, indexed"
SEED = 5
LR = 0.01
PEERS, QUICK_PEERS, LARGE = (100_000, 16), (10_000, 16), (1_000_000, 16)


def cases(quick: bool) -> Iterator[Planned]:
    """Against every peer, smaller in a quick run; and, in no quick run, against the limit."""
    size = QUICK_PEERS if quick else PEERS
    yield Planned(SUITE, name_of(64, True, size), functools.partial(case, 64, size))
    for batch, shuffled in itertools.product((64, 1024), (True, False)):
        if not quick:
            build = functools.partial(large_case, batch, shuffled)
            yield Planned(SUITE, name_of(batch, shuffled, LARGE), build)


def name_of(batch: int, shuffled: bool, size: tuple[int, int]) -> str:
    return f"{batch} of {size}, {'shuffled' if shuffled else 'in order'}"


AGAINST_PEERS = name_of(64, True, PEERS)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def loader(x: Tensor, y: Tensor, batch: int) -> DataLoader[tuple[Tensor, ...]]:
    dataset = TensorDataset(x, y)
    return DataLoader(dataset, batch_size=batch, shuffle=True, generator=generator())


def fit(p: Problem, batch: int, shuffled: bool = True, lr: float = LR) -> Contender:
    model = p.model()
    start = p.model().state_dict()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)

    def run() -> None:
        gdcore.fit(
            model,
            nn.MSELoss(),
            optimizer,
            (p.x, p.y),
            epochs=1,
            batch_size=batch,
            shuffle=shuffled,
            generator=generator() if shuffled else None,
        )

    def reset() -> None:
        model.load_state_dict(start)

    return Contender(FIT, run, lambda _: outcome(None, *model.parameters()), reset)


def eager(p: Problem, batch: int) -> Contender:
    model, loss_fn = p.model(), nn.MSELoss()
    start = p.model().state_dict()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)

    def run() -> None:
        for x, y in loader(p.x, p.y, batch):
            loss = loss_fn(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def reset() -> None:
        model.load_state_dict(start)

    return Contender("eager", run, lambda _: outcome(None, *model.parameters()), reset)


def eager_indexed(p: Problem, batch: int) -> Contender:
    """The usual step over ``x[rows]``, in the loader's order but without the loader."""
    return _by_index(INDEXED, p, batch, True, LR, _autograd_step)


def by_hand(p: Problem, batch: int, shuffled: bool = True, lr: float = LR) -> Contender:
    """Formulas under ``no_grad`` over ``x[rows]``."""
    return _by_index(BY_HAND, p, batch, shuffled, lr, _step_by_hand)


def _autograd_step(
    model: nn.Linear, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, lr: float
) -> None:
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def _step_by_hand(
    model: nn.Linear, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, lr: float
) -> None:
    error = torch.addmm(model.bias, x, model.weight.T).sub_(y)
    model.weight.sub_(error.T @ x, alpha=2 * lr / len(x))
    model.bias.sub_(error.sum(0), alpha=2 * lr / len(x))


def _by_index(
    name: str, p: Problem, batch: int, shuffled: bool, lr: float, step: Callable[..., None]
) -> Contender:
    model = p.model()
    start = p.model().state_dict()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)

    def run() -> None:
        if shuffled:
            for rows in drawn(len(p.x)).split(batch):
                step(model, optimizer, p.x[rows], p.y[rows], lr)
        else:
            for x, y in zip(p.x.split(batch), p.y.split(batch), strict=True):
                step(model, optimizer, x, y, lr)

    def reset() -> None:
        model.load_state_dict(start)

    return Contender(name, run, lambda _: outcome(None, *model.parameters()), reset)


def by_scikit_learn(p: Problem) -> list[Contender]:
    """``SGDRegressor.partial_fit``: one shuffled epoch, whose batches hold one row each."""
    if not installed(SCIKIT_LEARN):
        return []
    from sklearn.linear_model import SGDRegressor

    x, y = p.x.numpy(), p.y.numpy().ravel()
    rate = {"learning_rate": "constant", "eta0": LR / 10, "penalty": None}

    def run() -> Any:
        return SGDRegressor(**rate, random_state=SEED).partial_fit(x, y)

    def found(model: Any) -> Outcome:
        return outcome(None, model.coef_, model.intercept_)

    return [Contender(SCIKIT_LEARN, run, found)]


def order(n: int, shuffled: bool) -> np.ndarray[Any, Any]:
    """The rows of an epoch; those of a ``DataLoader`` do not depend on its batch size."""
    if not shuffled:
        return np.arange(n)
    drawn = DataLoader(
        range(n),  # type: ignore[arg-type]
        batch_size=n,
        shuffle=True,
        generator=generator(),
        collate_fn=np.array,
    )
    rows: np.ndarray[Any, Any] = next(iter(drawn))
    return rows


def drawn(n: int) -> Tensor:
    """The same rows without a loader, which draws a seed for its workers first."""
    source = generator()
    torch.empty((), dtype=torch.int64).random_(generator=source)
    return torch.randperm(n, generator=source)


def batches(rows: np.ndarray[Any, Any], batch: int) -> list[np.ndarray[Any, Any]]:
    return np.split(rows, range(batch, len(rows), batch))


def expected_epoch(p: Problem, batches: Sequence[np.ndarray[Any, Any]], lr: float = LR) -> Expected:
    """The steps in float64, and how far rounding to float32 may carry a contender from them.

    A step is off by what `agreement` derives, written out here for many short steps. Those of n
    steps, in whatever direction, add up to more than c times the root of the sum of their squares
    with a probability of at most 2 exp(-c^2 / 2) for each parameter, as the roundings of a sum do.
    """
    x, y, u = p.x.numpy(), p.targets(), UNIT_ROUNDOFF
    parameters, total, squares = p.flat_start(), 0.0, 0.0
    for rows in batches:
        phi = np.ones((len(rows), len(parameters)))
        phi[:, :-1] = x[rows]
        size, target, rate = np.abs(phi), y[rows], 2 * lr / len(rows)
        prediction = phi.dot(parameters)
        residual = prediction - target
        rounded = (len(parameters) + 1) * size.dot(np.abs(parameters))
        rounded += np.abs(prediction) + np.abs(target)
        rounded += (SUM_FACTOR * math.sqrt(len(rows)) + 3) * np.abs(residual)
        update = rate * residual.dot(phi)
        rounding = u * (rate * rounded.dot(size) + 2 * (np.abs(parameters) + np.abs(update)))
        total += math.sqrt(rounding.dot(rounding))
        squares += rounding.dot(rounding)
        parameters = parameters - update
    drift = min(total, SUM_FACTOR * math.sqrt(squares))
    return Expected(None, 0.0, parameters, np.full_like(parameters, drift))


def near_best(p: Problem) -> Expected:
    """The parameters that fit best, give or take what descent by samples leaves.

    The noise of a target is 0.1. Around the best parameters a gradient's noise is then at most 0.2
    for each parameter, and a rate of 0.01 keeps them within about 0.2 sqrt(0.01 / 4) = 0.01 of it:
    five times that is allowed.
    """
    phi = np.hstack([p.x.numpy(), np.ones((len(p.x), 1), np.float32)]).astype(np.float64)
    best = np.linalg.solve(phi.T @ phi, phi.T @ p.targets()).astype(np.float64)
    return Expected(None, 0.0, best, np.full_like(best, 0.05))


def case(batch: int, size: tuple[int, int]) -> Case:
    p = Problem.random(*size, seed=size[0])
    index = torch.arange(len(p.x))
    given = [rows.numpy() for rows, _ in loader(index, index, batch)]
    same = [fit(p, batch), eager(p, batch), eager_indexed(p, batch), by_hand(p, batch)]
    near = by_scikit_learn(p)
    checks = [
        Check(same, 1, expected_epoch(p, given), "after an epoch"),
        Check(near, 1, near_best(p), "after an epoch"),
    ]
    return Case([*same, *near], checks, "epoch", missing=missing(SCIKIT_LEARN))


@functools.lru_cache(maxsize=1)
def large() -> Problem:
    return Problem.random(*LARGE, seed=1)


def large_case(batch: int, shuffled: bool) -> Case:
    """The same training as the other case, on more rows than the caches hold.

    At a rate of 0.01 a step forgets 2 % of what was before it, and an epoch all but its end. Here a
    step forgets 2 parts of as many as there are steps: the start still weighs exp(-2) at the end,
    so an epoch that leaves out a share s of its rows ends about 2 s exp(-2) of the way from the
    start to the best away from where it should, for s = 0.02 more than rounding explains.
    """
    p = large()
    given = batches(order(len(p.x), shuffled), batch)
    lr = 1 / len(given)
    contenders = [fit(p, batch, shuffled, lr)]
    if batch > 64:  # the loop over short ones takes seconds
        contenders.append(by_hand(p, batch, shuffled, lr))
    limit: Limit | None = limits.random_rows(p.x) if shuffled else limits.read(p.read_bytes)
    checks = [Check(contenders, 1, expected_epoch(p, given, lr), "after an epoch")]
    return Case(contenders, checks, "epoch", limit=limit, work=p.read_bytes)
