"""train_step where what a model does shows in some values only: of x, of parameters, of others."""

import contextvars
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gdcore

from ..devices import NOT_EMULATED, ON_CPU

# Known by their names alone, models step natively elsewhere; these step eagerly there.
pytestmark = pytest.mark.usefixtures("device")

LOSS = nn.MSELoss()


def eagerly(model: Callable[[Tensor], Tensor], optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss: Tensor = LOSS(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


def tensors(values: float | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(4, 1, generator=generator, dtype=torch.float64, device="cpu")
    drawn = drawn.to(torch.get_default_device())
    W, b = (drawn[:3], drawn[3]) if values is None else (drawn[:3] * 0 + values, drawn[3] * 0)
    return W.clone().requires_grad_(), b.clone().requires_grad_()


WITH_X: dict[str, Callable[[Tensor], Tensor]] = {
    "a value that stands for a missing one": lambda x: x.masked_fill(x == -1, 0.0),
    "where": lambda x: torch.where(x == -9999, 0.0, x),
    "nan_to_num": torch.nan_to_num,
    "infinite ones": lambda x: torch.where(x.isinf(), 0.0, x),
    "a far limit": lambda x: x.clamp(max=1e6),
    "in place": lambda x: x.clone().clamp_(max=1e6),
    "a column alone": lambda x: torch.cat([x[:, :2], x[:, 2:].clamp(max=1e6)], 1),
    "of a dtype between": lambda x: x.float().double(),
}


@NOT_EMULATED
@pytest.mark.parametrize("name", WITH_X)
def test_what_a_model_does_with_x_shows_for_some_values_only(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    batches = torch.randn(4, 8, 3, generator=generator, device="cpu").double()
    batches = batches.to(torch.get_default_device())
    for at, value in enumerate((-1, -9999, torch.nan, 1e7)):
        if name != "nan_to_num" or value != value:
            batches[at][5, 2] = value
    made = [tensors(), tensors()]
    optimizers = [torch.optim.SGD(held, lr=1e-3) for held in made]
    (W, b), (V, c) = made
    step = gdcore.train_step(lambda x: WITH_X[name](x) @ W + b, LOSS, optimizers[0])
    for x in batches:
        y = x[:, :1].nan_to_num(0)
        expected = eagerly(lambda x: WITH_X[name](x) @ V + c, optimizers[1], x, y)
        found = step(x, y)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0, equal_nan=True)
        torch.testing.assert_close((W, b), (V, c), rtol=1e-10, atol=1e-12, equal_nan=True)


@ON_CPU
@pytest.mark.parametrize("name", WITH_X)
def test_it_is_refused_where_the_step_has_to_be_native(name: str) -> None:
    (W, b), x = tensors(), torch.randn(8, 3, dtype=torch.float64)
    optimizer = torch.optim.SGD([W, b], lr=1e-3)
    step = gdcore.train_step(lambda x: WITH_X[name](x) @ W + b, LOSS, optimizer, strict=True)
    with pytest.raises(ValueError, match="computes with x before"):
        step(x, x[:, :1])


MOVED: dict[str, Callable[[Tensor], Tensor]] = {
    "x": lambda x: x,
    "a copy": lambda x: x.clone(),
    "columns": lambda x: torch.stack([x[:, 2], x[:, 0], x[:, 1]], 1),
    "columns by a list": lambda x: x[:, [2, 0, 1]],
    "columns by their numbers": lambda x: x.index_select(1, torch.tensor([1, 2, 0])),
    "with the other sign": lambda x: -x,
    "with a number": lambda x: -2 * x / 3,
    "into memory of its own": lambda x: x.new_empty(x.shape).copy_(x),
    "reshaped": lambda x: x.reshape(len(x), 3, 1).squeeze(2),
}


@ON_CPU
@pytest.mark.parametrize("name", MOVED)
def test_what_only_moves_x_steps_natively(name: str) -> None:
    W, b = tensors()
    optimizer = torch.optim.SGD([W, b], lr=1e-3)
    step = gdcore.train_step(lambda x: MOVED[name](x) @ W + b, LOSS, optimizer, strict=True)
    x = torch.randn(8, 3, dtype=torch.float64)
    step(x, x[:, :1])


@ON_CPU
def test_a_column_of_ones_beside_x() -> None:
    W = torch.zeros(4, 1, dtype=torch.float64, requires_grad=True)
    x = torch.randn(8, 3, dtype=torch.float64)
    for model in (
        lambda x: F.pad(x, (0, 1), value=1.0) @ W,
        lambda x: torch.hstack([x, x.new_ones(len(x), 1)]) @ W,
    ):
        gdcore.train_step(model, LOSS, torch.optim.SGD([W], lr=0.1), strict=True)(x, x[:, :1])


variable = contextvars.ContextVar("factor", default=1.0)


def scaled(weight: Tensor, bias: Tensor, state: Any, x: Tensor) -> Tensor:
    factor: Tensor = state.gain * state.a.b.c.d.e.f * variable.get()
    return x @ weight * factor + bias


def in_place(state: Any) -> None:
    state.gain.fill_(0.25)


def past_the_version(state: Any) -> None:
    state.gain.data.fill_(0.25)


def far_away(state: Any) -> None:
    state.a.b.c.d.e.f = 0.25


def in_a_context(state: Any) -> None:
    variable.set(0.25)


@NOT_EMULATED
@pytest.mark.parametrize("start", [None, 0.0])
@pytest.mark.parametrize("change", [in_place, past_the_version, far_away, in_a_context])
def test_a_change_that_the_first_row_hides(change: Callable[[Any], None], start: Any) -> None:
    """The first row is zero, or all parameters are when the change comes."""
    found = []
    for native in (True, False):
        variable.set(1.0)
        W, b = tensors(start)
        inner = SimpleNamespace(b=SimpleNamespace(c=SimpleNamespace(d=SimpleNamespace())))
        inner.b.c.d.e = SimpleNamespace(f=1.0)
        state = SimpleNamespace(gain=torch.ones((), dtype=torch.float64), a=inner)

        model = functools.partial(scaled, W, b, state)

        optimizer = torch.optim.SGD([W, b], lr=0.01)
        step = gdcore.train_step(model, LOSS, optimizer) if native else None
        generator = torch.Generator().manual_seed(2)
        x = torch.randn(8, 3, generator=generator, device="cpu").double()
        x[0] = 0
        x = x.to(torch.get_default_device())
        y, losses = x.sum(1, keepdim=True), []
        for i in range(6):
            if i == 3:
                change(state)
                with torch.no_grad():
                    if start is not None:
                        W.zero_()
            losses.append(eagerly(model, optimizer, x, y) if step is None else step(x, y))
        found.append((torch.stack(losses), W.detach(), b.detach()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


@ON_CPU
def test_parameters_that_stay_zero_step_natively() -> None:
    """A column of zeros leaves its weight at zero, where a prediction tells nothing of it."""
    W, b = tensors(0.0)
    step = gdcore.train_step(lambda x: x @ W + b, LOSS, torch.optim.SGD([W, b], lr=0.01))
    x = torch.randn(8, 3, dtype=torch.float64)
    x[:, 1] = 0
    step(x, x[:, :1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", None)
        step(x, x[:, :1])
    assert W[1] == 0


class Keeps(nn.Module):
    """Wants the gradient of its own prediction, which only a forward with autograd has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        assert out.requires_grad
        out.retain_grad()
        return out


class OfManyRows(Keeps):
    def forward(self, x: Tensor) -> Tensor:
        assert len(x) > 1, "one row is too few"
        out: Tensor = self.linear(x)
        return out


@NOT_EMULATED
@pytest.mark.parametrize("kind", [Keeps, OfManyRows])
def test_a_model_that_wants_more_than_a_row(kind: type[Keeps]) -> None:
    ours, theirs = kind(), kind()
    step = gdcore.train_step(ours, LOSS, torch.optim.SGD(ours.parameters(), lr=0.1))
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    x = torch.randn(8, 3)
    for _ in range(3):
        expected = eagerly(theirs, optimizer, x, x[:, :1])
        torch.testing.assert_close(step(x, x[:, :1]), expected, rtol=1e-5, atol=1e-7)
