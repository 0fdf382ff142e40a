"""Functions of x over tensors that are affine in them, in the many ways people write them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ..devices import NOT_EMULATED
from .affine_cases import moved, taken, tensor

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

X = torch.randn(6, 3, dtype=torch.float64)


W, V, B = tensor(3, 2), tensor(3), tensor(2)
W1, W2, W3, B1 = tensor(1), tensor(1), tensor(1), tensor(1)
A0, A1, A2, A3 = tensor(), tensor(), tensor(), tensor()
COLUMNS = tuple(torch.randn(6, 1, dtype=torch.float64) for _ in range(3))
LINE = torch.randn(6, 1, dtype=torch.float64)
FLAT = torch.randn(6, dtype=torch.float64)

FUNCTIONS: dict[str, tuple[Callable[..., Tensor], list[Tensor], Any, int]] = {
    "x * W": (lambda x: x * W1, [W1], LINE, 1),
    "x * W + b": (lambda x: x * W1 + B1, [W1, B1], LINE, 2),
    "columns of a tuple": (
        lambda x1, x2, x3: x1 * W1 + x2 * W2 + x3 * W3 + B1,
        [W1, W2, W3, B1],
        COLUMNS,
        4,
    ),
    "columns of one tensor": (
        lambda x: x[:, 0] * W1 + x[:, 1] * W2 + x[:, 2] * W3 + B1,
        [W1, W2, W3, B1],
        X,
        4,
    ),
    "x @ W": (lambda x: x @ W, [W], X, 3),
    "x @ W + b": (lambda x: x @ W + B, [W, B], X, 4),
    "x.matmul(W) + b": (lambda x: x.matmul(W) + B, [W, B], X, 4),
    "a vector": (lambda x: x @ V, [V], X, 3),
    "torch.mv": (lambda x: torch.mv(x, V) + 1.5, [V], X, 3),
    "elementwise and sum": (lambda x: (x * V).sum(1), [V], X, 3),
    "mean over columns": (lambda x: (x * V).mean(-1, keepdim=True), [V], X, 3),
    "F.linear": (lambda x: F.linear(x, W.T, B), [W, B], X, 4),
    "addmm": (lambda x: torch.addmm(B, x, W, beta=2, alpha=0.5), [W, B], X, 4),
    "baddbmm": (lambda x: torch.baddbmm(B, x[None], W[None])[0], [W, B], X, 4),
    "einsum": (lambda x: torch.einsum("nd,dk->nk", x, W) + B, [W, B], X, 4),
    "inner": (lambda x: torch.inner(x, W.T), [W], X, 3),
    "tensordot": (lambda x: torch.tensordot(x, W, 1), [W], X, 3),
    "polynomial": (
        lambda x: A0 + A1 * x + A2 * x**2 + A3 * x**3,
        [A0, A1, A2, A3],
        FLAT,
        4,
    ),
    "sines and products": (
        lambda x: A0 * x[:, 0].sin() + A1 * (x[:, 1] * x[:, 2]) + A2 * x.relu()[:, 0],
        [A0, A1, A2],
        X,
        3,
    ),
    "powers by unsqueeze": (
        lambda x: x.unsqueeze(-1).pow(torch.tensor([1, 2, 3])) @ V + A0,
        [V, A0],
        FLAT,
        4,
    ),
    "stack of parameters": (lambda x: x @ torch.stack([A0, A1, A2]), [A0, A1, A2], X, 3),
    "columns of a parameter": (lambda x: x @ W[:, 0] - x @ W[:, 1], [W], X, 6),
    "used twice": (lambda x: x * W1 + x.square() * W1 + W1, [W1], LINE, 2),
    "the power one": (lambda x: x @ W**1, [W], X, 3),
    "in place": (lambda x: (x @ W).add_(B).mul_(2), [W, B], X, 4),
    "in place on a view": (lambda x: (x @ W).view(2, 3, 2).add_(B), [W, B], X, 4),
    "the other way round": (lambda x: 1 - (x @ W - B) / 4, [W, B], X, 4),
    "masked": (lambda x: torch.where(x[:, :2] > 0, x @ W, B), [W, B], X, 16),
    "filled": (lambda x: (x @ W).masked_fill(x[:, :2] > 0, 0.1), [W], X, 14),
    "split and joined": (lambda x: torch.cat(list((x @ W).split(1, 1))[::-1], 1), [W], X, 3),
    "movements": (lambda x: (x @ W).flip(1).roll(1, 1).T.T, [W], X, 6),
    "an embedding": (lambda x: F.embedding(torch.arange(6) % 3, W), [W], X, 6),
    "cumulated": (lambda x: (x * V).cumsum(1), [V], X, 3),
    "made in the shape of it": (
        lambda x: x @ W + torch.ones_like(x @ W) * W.new_full((2,), 3),
        [W],
        X,
        3,
    ),
    "rows by a mask": (lambda x: (x @ W)[x[:, 0] > -9], [W], X, 6),
    "in steps": (lambda x: torch.diff(x @ W, dim=1), [W], X, 6),
    "lerp": (lambda x: torch.lerp(x @ W, B, 0.25), [W, B], X, 4),
}


@pytest.fixture(autouse=True)
def _there(device: torch.device) -> Iterator[None]:
    with moved(globals(), device):
        yield


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    model, parameters, x, columns = FUNCTIONS[name]
    form = taken(model, parameters, x)
    assert form.features.shape[1] <= columns
    assert set(form.names) <= {"W", "V", "B", "W1", "W2", "W3", "B1", "A0", "A1", "A2", "A3"}
