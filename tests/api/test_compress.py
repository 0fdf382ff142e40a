"""gdcore.compress: a few rows that train as all of them do, with an ordinary nn.Linear."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gdcore

from ..devices import NOT_EMULATED

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]


def data(
    n: int = 500, d: int = 4, k: int | None = 2, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        made = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
        return made.to(torch.get_default_device())

    x = random(n, d) + 1
    y = x @ random(d, k or 1) - 2
    y = y + random(*y.shape)
    return x.to(dtype), (y if k else y.squeeze(1)).to(dtype)


def row_weight(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    made = torch.rand(n, generator=generator, dtype=torch.float64, device="cpu")
    return made.to(torch.get_default_device())


def loss_and_gradient(
    model: nn.Module, x: Tensor, y: Tensor, weight: Tensor | None = None
) -> list[Tensor]:
    squares = (model(x).reshape(y.shape) - y) ** 2
    if weight is None:
        loss = squares.mean()
    else:
        w = weight.reshape(-1, *[1] * (y.dim() - 1)).expand(y.shape)
        loss = (w * squares).sum() / w.sum()
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def assert_same_problem(
    small: gdcore.Compressed,
    x: Tensor,
    y: Tensor,
    weight: Tensor | None = None,
    bias: bool = True,
    rtol: float = 1e-10,
) -> None:
    """The same loss and gradient for several θ: sums of n rows in float64, some 1e-13 off."""
    for seed in range(3):
        torch.manual_seed(seed)
        outputs = y.shape[1] if y.dim() == 2 else 1
        model = nn.Linear(x.shape[1], outputs, bias=bias, dtype=x.dtype)
        expected = loss_and_gradient(model, x, y, weight)
        actual = loss_and_gradient(model, small.x, small.y)
        for a, b in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * expected[0].item())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [None, 1, 3])
@pytest.mark.parametrize("n", [1, 2, 5, 500])
def test_the_same_loss_and_gradient(n: int, k: int | None, weighted: bool, bias: bool) -> None:
    x, y = data(n, 4, k)
    weight = row_weight(n) if weighted else None
    small = gdcore.compress(x, y, weight, bias)
    (small_x, small_y), rows = small
    assert len(small_x) == len(small_y) == min(n, 4 + (k or 1) + bias)
    assert small_x is small.x
    assert small_y.dim() == y.dim()
    assert rows == (n if weight is None else weight.sum().item())
    assert isinstance(rows, int) == (weight is None)
    assert_same_problem(small, x, y, weight, bias)


def test_a_sum() -> None:
    """rows / len(x) times the sum over the few."""
    x, y = data()
    (small_x, small_y), rows = gdcore.compress(x, y)
    model = nn.Linear(4, 2, dtype=torch.float64)
    few = F.mse_loss(model(small_x), small_y, reduction="sum") * (rows / len(small_x))
    torch.testing.assert_close(few, F.mse_loss(model(x), y, reduction="sum"))


@pytest.mark.parametrize("kind", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_it_trains_as_all_rows_do(kind: str) -> None:
    x, y = data()
    (small_x, small_y), _ = gdcore.compress(x, y)
    model = nn.Linear(4, 2, dtype=torch.float64)
    other = copy.deepcopy(model)
    for each, inputs, targets in ((model, x, y), (other, small_x, small_y)):
        optimizer = getattr(torch.optim, kind)(each.parameters(), lr=0.01)
        for _ in range(100):
            optimizer.zero_grad()
            F.mse_loss(each(inputs), targets).backward()
            optimizer.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def stacked(pieces: list[gdcore.Compressed]) -> gdcore.Compressed:
    """Pieces compressed again, each row standing for as many as it does."""
    weight = [torch.full((len(p.x),), p.rows / len(p.x), dtype=torch.float64) for p in pieces]
    x, y = torch.cat([p.x for p in pieces]), torch.cat([p.y for p in pieces])
    return gdcore.compress(x, y, torch.cat(weight))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
@pytest.mark.parametrize("weighted", [False, True])
def test_in_pieces_of_any_order(order: tuple[int, ...], weighted: bool) -> None:
    x, y = data(300)
    weight = row_weight(300) if weighted else None
    bounds = [0, 3, 100, 110, 300]
    pieces = [slice(bounds[i], bounds[i + 1]) for i in order]
    w = [None if weight is None else weight[p] for p in pieces]
    parts = [gdcore.compress(x[p], y[p], v) for p, v in zip(pieces, w, strict=True)]
    small = stacked(parts)
    assert len(small.x) == 7
    assert small.rows == pytest.approx(300 if weight is None else weight.sum().item())
    assert_same_problem(small, x, y, weight)
    two = stacked([stacked(parts[:2]), stacked(parts[2:])])
    assert_same_problem(two, x, y, weight)


def test_twice() -> None:
    """R is its own factor, up to signs."""
    x, y = data()
    once = gdcore.compress(x, y)
    assert_same_problem(gdcore.compress(once.x, once.y), x, y)


def test_float32() -> None:
    """Computed in float64 and rounded once: as close as float32 data say."""
    x, y = data(20_000, 6, 1, torch.float32)
    small = gdcore.compress(x, y)
    assert small.x.dtype == small.y.dtype == torch.float32
    torch.manual_seed(0)
    model = nn.Linear(6, 1, dtype=torch.float64)
    expected = loss_and_gradient(model, x.double(), y.double())
    actual = loss_and_gradient(model, small.x.double(), small.y.double())
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * expected[0].item())


@pytest.mark.parametrize("n", [40_000, 65_537])
def test_many_blocks(n: int) -> None:
    x, y = data(n, 30, 1)
    assert_same_problem(gdcore.compress(x, y), x, y)


def test_rows_and_columns_that_repeat() -> None:
    x, y = data(200, 3, 1)
    x = torch.cat((x, x[:, :1], torch.ones(200, 1, dtype=x.dtype), torch.zeros(200, 1)), 1).double()
    assert_same_problem(gdcore.compress(x, y), x, y)
    assert_same_problem(gdcore.compress(x[:1].expand(200, -1), y), x[:1].expand(200, -1), y)


def test_a_graph_is_left_alone() -> None:
    x, y = data()
    small = gdcore.compress(x.requires_grad_(), y)
    assert not small.x.requires_grad


X, Y = torch.zeros(5, 3), torch.zeros(5, 1)
REFUSED: dict[str, tuple[type[Exception], str, tuple[Any, ...]]] = {
    "no tensor": (TypeError, r"^x: expected a torch.Tensor, got list$", ([[1.0]], Y)),
    "integers": (TypeError, r"^x: expected dtype", (X.long(), Y)),
    "two dtypes": (TypeError, r"^y: expected dtype torch.float32 as x", (X, Y.double())),
    "a vector": (ValueError, r"^x: expected shape \(n, d\)", (X[:, 0], Y)),
    "no rows": (ValueError, r"^x: .*at least one row", (X[:0], Y[:0])),
    "other rows": (ValueError, r"^y: expected shape \(5,\) or \(5, k\)", (X, Y[:4])),
    "another device": (ValueError, r"^y: expected a CPU tensor", (X, Y.to("meta"))),
    "weights of elements": (ValueError, r"^weight: expected shape \(5,\)", (X, Y, Y)),
    "negative": (ValueError, r"^weight: .*not negative", (X, Y, -torch.ones(5))),
    "NaN weights": (ValueError, r"^weight: .*finite", (X, Y, torch.ones(5) * float("nan"))),
    "infinite weights": (ValueError, r"^weight: .*finite", (X, Y, torch.ones(5) * float("inf"))),
    "sparse": (ValueError, r"^x: expected a dense tensor .*sparse_coo", (X.to_sparse(), Y)),
    "no columns": (ValueError, r"^x: expected a column .*none", (X[:, :0], Y[:, :0], None, False)),
    "no bool": (TypeError, r"^bias: expected a bool, got int", (X, Y, None, 3)),
    "no weight": (ValueError, r"^weight: expected at least one", (X, Y, torch.zeros(5))),
    "NaN": (ValueError, r"^x, y: expected values that are finite", (X / 0, Y)),
    "infinity": (ValueError, r"^x, y: expected values that are finite", (X, Y + float("inf"))),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str) -> None:
    kind, message, arguments = REFUSED[what]
    with pytest.raises(kind, match=message):
        gdcore.compress(*arguments)
