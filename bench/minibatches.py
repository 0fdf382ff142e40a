"""One epoch of minibatches, in the order that PyTorch's ``DataLoader`` gives them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gdcore
import limits
from agreement import UNIT_ROUNDOFF, Affine, Expected, Outcome, as_float64, evaluate, outcome
from available import SCIKIT_LEARN, installed, missing
from case import Case, Check, Contender, Limit, Planned
from linear import Problem
from loops import FIT

SUITE = "minibatches"
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


def fit(p: Problem, batch: int, shuffled: bool = True) -> Contender:
    model = p.model()
    start = p.model().state_dict()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)

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


def expected_epoch(p: Problem, batches: Sequence[np.ndarray[Any, Any]]) -> Expected:
    """The steps in float64, with the bound of `agreement` carried from one to the next."""
    x, y, u = p.x.numpy(), p.targets(), UNIT_ROUNDOFF
    parameters, drift = p.flat_start(), 0.0
    for rows in batches:
        model = Affine(x[rows], intercept=True)
        there = evaluate(model, y[rows], parameters, mean=True, drift=drift)
        update = LR * there.gradient
        rounding = LR * there.gradient_error + 2 * u * (np.abs(parameters) + np.abs(update))
        parameters = parameters - update
        drift += float(np.linalg.norm(rounding))
    return Expected(None, 0.0, parameters, np.full_like(parameters, drift))


def near_best(p: Problem) -> Expected:
    """The parameters that fit best, give or take what descent by samples leaves.

    The noise of a target is 0.1. Around the best parameters a gradient's noise is then at most 0.2
    for each parameter, and a rate of 0.01 keeps them within about 0.2 sqrt(0.01 / 4) = 0.01 of it:
    five times that is allowed.
    """
    phi = np.hstack([p.x.numpy(), np.ones((len(p.x), 1), np.float32)]).astype(np.float64)
    best = np.linalg.solve(phi.T @ phi, phi.T @ p.targets())
    return Expected(None, 0.0, best, np.full_like(best, 0.05))


def case(batch: int, size: tuple[int, int]) -> Case:
    p = Problem.random(*size, seed=size[0])
    index = torch.arange(len(p.x))
    batches = [as_float64(rows).astype(np.int64) for rows, _ in loader(index, index, batch)]
    same, near = [fit(p, batch), eager(p, batch)], by_scikit_learn(p)
    checks = [
        Check(same, 1, expected_epoch(p, batches), "after an epoch"),
        Check(near, 1, near_best(p), "after an epoch"),
    ]
    return Case([*same, *near], checks, "epoch", missing=missing(SCIKIT_LEARN))


def large_case(batch: int, shuffled: bool) -> Case:
    """The same training as the other case, on more rows than the caches hold."""
    p = Problem.random(*LARGE, seed=1)
    contenders = [fit(p, batch, shuffled)]
    limit: Limit | None = limits.random_rows(p.x) if shuffled else limits.read(p.read_bytes)
    checks = [Check(contenders, 1, near_best(p), "after an epoch")]
    return Case(contenders, checks, "epoch", limit=limit, work=p.read_bytes)
