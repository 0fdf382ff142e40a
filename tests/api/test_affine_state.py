"""State that a forward changes, wherever it is kept: refused, and as it was before."""

import collections
import itertools
import random
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gdcore
from gdcore.affine import AffineForm, affine_form

from ..devices import NOT_EMULATED
from .affine_cases import moved, refused, tensor

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

X = torch.randn(6, 3, dtype=torch.float64)
W = tensor(3, 2)


@pytest.fixture(autouse=True)
def _there(device: torch.device) -> Iterator[None]:
    with moved(globals(), device):
        yield


class Slots:
    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0


class Base(nn.Module):
    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.weight = W


class OwnClass(Base):
    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return x @ self.weight


class BaseClass(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.count()
        return x @ self.weight

    @classmethod
    def count(cls) -> None:
        Base.calls += 1


class Private(Base):
    def __init__(self) -> None:
        super().__init__()
        self._slots = Slots()

    def forward(self, x: Tensor) -> Tensor:
        self._slots.calls += 1
        return x @ self.weight


def function_attribute() -> tuple[Any, Callable[[], Any]]:
    def model(x: Tensor) -> Tensor:
        model.calls += 1  # type: ignore[attr-defined]
        return x @ W

    model.calls = 0  # type: ignore[attr-defined]
    return model, lambda: model.calls  # type: ignore[attr-defined]


def first_function_attribute() -> tuple[Any, Callable[[], Any]]:
    def model(x: Tensor) -> Tensor:
        model.called = True  # type: ignore[attr-defined]
        return x @ W

    return model, lambda: hasattr(model, "called")


def keyword_default() -> tuple[Any, Callable[[], Any]]:
    state = {"calls": 0}

    def model(x: Tensor, *, state: dict[str, int] = state) -> Tensor:
        state["calls"] += 1
        return x @ W

    return model, lambda: state["calls"]


def default_object() -> tuple[Any, Callable[[], Any]]:
    state = Slots()

    def model(x: Tensor, state: Slots = state) -> Tensor:
        state.calls += 1
        return x @ W

    return model, lambda: state.calls


def class_in_closure() -> tuple[Any, Callable[[], Any]]:
    class State:
        calls = 0

    def model(x: Tensor) -> Tensor:
        State.calls += 1
        return x @ W

    return model, lambda: State.calls


def slots() -> tuple[Any, Callable[[], Any]]:
    state = Slots()

    def model(x: Tensor) -> Tensor:
        state.calls += 1
        return x @ W

    return model, lambda: state.calls


def deque() -> tuple[Any, Callable[[], Any]]:
    last = collections.deque([0], maxlen=1)

    def model(x: Tensor) -> Tensor:
        last.append(last[0] + 1)
        return x @ W

    return model, lambda: list(last) != [0]


def array_of_bytes() -> tuple[Any, Callable[[], Any]]:
    count = bytearray(1)

    def model(x: Tensor) -> Tensor:
        count[0] += 1
        return x @ W

    return model, lambda: count[0]


def module_attribute() -> tuple[Any, Callable[[], Any]]:
    settings = types.ModuleType("settings")
    settings.inner = types.ModuleType("settings.inner")  # type: ignore[attr-defined]
    settings.inner.calls = 0  # type: ignore[attr-defined]

    def model(x: Tensor) -> Tensor:
        settings.inner.calls += 1  # type: ignore[attr-defined]
        return x @ W

    return model, lambda: settings.inner.calls  # type: ignore[attr-defined]


def within_no_grad() -> tuple[Any, Callable[[], Any]]:
    state = [0]

    @torch.no_grad()
    def count() -> None:
        state[0] += 1

    def model(x: Tensor) -> Tensor:
        count()
        return x @ W

    return model, lambda: state[0]


def of(kind: type[Base]) -> Callable[[], tuple[Any, Callable[[], Any]]]:
    return lambda: (
        kind(),
        lambda: Base.calls + kind.calls + getattr(kind, "_slots", Slots()).calls,
    )


KEPT: dict[str, Callable[[], tuple[Any, Callable[[], Any]]]] = {
    "an attribute of the function": function_attribute,
    "its first attribute": first_function_attribute,
    "a keyword's default": keyword_default,
    "an object as default": default_object,
    "a class in the closure": class_in_closure,
    "its own class": of(OwnClass),
    "its base class": of(BaseClass),
    "a private attribute": of(Private),
    "slots": slots,
    "a deque": deque,
    "a bytearray": array_of_bytes,
    "a module": module_attribute,
    "a wrapped function": within_no_grad,
}


@pytest.mark.parametrize("name", KEPT)
def test_state(name: str) -> None:
    model, calls = KEPT[name]()
    refused(model, [W], X, "state")
    assert not calls()


def generator() -> Iterator[int]:
    while True:
        yield 1


@pytest.mark.parametrize(
    ("state", "draw", "words"),
    [
        (itertools.count(), next, "an iterator (count)"),
        (generator(), next, "an iterator (generator)"),
        (iter([1.0] * 100), next, "an iterator (list_iterator)"),
        (random.Random(0), lambda r: r.random(), "random numbers of its own (Random)"),
        (np.random.default_rng(0), lambda r: r.random(), "random numbers of its own (Generator)"),
        (np.random.RandomState(0), lambda r: r.rand(), "random numbers of its own (RandomState)"),
        (random.Random(0).random, lambda draw: draw(), "random numbers of its own (Random)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_state_that_moves_on(state: Any, draw: Callable[[Any], Any], words: str) -> None:
    """Refused without a call, so that nothing is drawn."""

    class Held(Base):
        def __init__(self) -> None:
            super().__init__()
            self.state = state

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight if draw(self.state) > -1 else -(x @ self.weight)

    refused(lambda x: x @ W if draw(state) > -1 else -(x @ W), [W], X, words)
    refused(Held(), [W], X, words)


def test_state_that_stays_as_it_is() -> None:
    """What a forward only reads is no hindrance."""
    settings = types.ModuleType("settings")
    settings.scale = 2.0  # type: ignore[attr-defined]
    state, last = Slots(), collections.deque([3.0])

    def model(x: Tensor, *, power: float = 1.0) -> Tensor:
        scale = settings.scale * last[0] + state.calls + model.k  # type: ignore[attr-defined]
        return x @ W * scale**power + sys.maxsize * 0

    model.k = 1.0  # type: ignore[attr-defined]
    assert isinstance(affine_form(model, [W], X), AffineForm)


def attribute_of_loss() -> tuple[Any, Callable[[float], Any]]:
    def loss(h: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(h, y) * loss.k  # type: ignore[attr-defined]

    loss.k = 1.0  # type: ignore[attr-defined]
    return loss, lambda k: setattr(loss, "k", k)


def class_of_loss() -> tuple[Any, Callable[[float], Any]]:
    class Loss:
        k = 1.0

        def __call__(self, h: Tensor, y: Tensor) -> Tensor:
            return F.mse_loss(h, y) * self.k

    return Loss(), lambda k: setattr(Loss, "k", k)


def keyword_of_loss() -> tuple[Any, Callable[[float], Any]]:
    def loss(h: Tensor, y: Tensor, *, k: float = 1.0) -> Tensor:
        return F.mse_loss(h, y) * k

    return loss, lambda k: setattr(loss, "__kwdefaults__", {"k": k})


def tensor_of_loss() -> tuple[Any, Callable[[float], Any]]:
    factor = torch.ones((), dtype=torch.float64)
    return lambda h, y: F.mse_loss(h, y) * factor, lambda k: factor.fill_(k)


@pytest.mark.parametrize(
    "make", [attribute_of_loss, class_of_loss, keyword_of_loss, tensor_of_loss]
)
def test_a_loss_that_changes_between_steps(
    make: Callable[[], tuple[Any, Callable[[float], Any]]],
) -> None:
    loss, put = make()
    w = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    step = gdcore.train_step(lambda x: x @ w, loss, torch.optim.SGD([w], lr=0.0))
    y = torch.zeros(6, 2, dtype=torch.float64)
    for k in (1.0, 1.0, 3.0, 3.0, 1.0):
        put(k)
        expected = F.mse_loss(X @ w, y).detach() * k
        torch.testing.assert_close(step(X, y), expected, rtol=1e-12, atol=0.0)
