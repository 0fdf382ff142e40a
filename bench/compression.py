"""``gdcore.compress``: many rows to a few that train alike, beside one product of the features."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

import gdcore
from agreement import DisagreementError, expected_descent, outcome
from case import Case, Contender, Planned
from linear import Problem

SUITE = "compression"
COMPRESS, PRODUCT, QR = "gdcore.compress", "torch.mm, ΦᵀΦ", "NumPy, qr"
SIZES = ((100_000, 16), (100_000, 64), (1_000_000, 64))
LARGEST_QUICK = 2_000_000
LARGEST_QR = 10_000_000
CHECKED_STEPS = 3


def name_of(n: int, d: int) -> str:
    return f"({n}, {d})"


def cases(quick: bool) -> Iterator[Planned]:
    for n, d in SIZES:
        if not quick or n * d <= LARGEST_QUICK:
            yield Planned(SUITE, name_of(n, d), functools.partial(case, n, d))


def train(p: Problem, x: Any, y: Any) -> Any:
    """A few steps of the usual loop on the compressed rows."""
    model = p.model().to(x.dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=p.lr)
    for _ in range(CHECKED_STEPS):
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return outcome(loss, *model.parameters())


def case(n: int, d: int) -> Case:
    """The product's features are in float64 before its clock starts; its ones are not made anew.

    Raises:
        DisagreementError: The compressed rows train otherwise.
    """
    p = Problem.random(n, d, seed=n + d)
    (x, y), _ = gdcore.compress(p.x, p.y)
    arrays = (p.affine(), p.targets(), p.flat_start())
    steps = (CHECKED_STEPS,)
    expected = expected_descent(*arrays, lr=p.lr, mean=True, steps=steps)[CHECKED_STEPS]
    try:
        expected.check(train(p, x, y))
    except DisagreementError as error:
        raise DisagreementError(f"{COMPRESS}: {error}") from None
    phi = torch.cat([p.x.double(), torch.ones(n, 1, dtype=torch.float64)], 1)
    contenders = [
        Contender(COMPRESS, lambda: gdcore.compress(p.x, p.y)),
        Contender(PRODUCT, lambda: phi.T @ phi),
    ]
    if n * d > LARGEST_QR:
        return Case(contenders, [], "call", missing={QR: "seconds a call"})
    system = np.hstack([phi.numpy(), p.y.double().numpy()])
    contenders.append(Contender(QR, lambda: np.linalg.qr(system, mode="r")))
    return Case(contenders, [], "call")
