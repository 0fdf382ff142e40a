"""Models whose forward does more than compute: draws, writes, counts, carries hooks. Refused."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdcore.affine import AffineForm, NotAffine, affine_form

from ..devices import NOT_EMULATED
from .affine_cases import moved, refused, tensor

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

X = torch.randn(6, 3, dtype=torch.float64)
W, B = tensor(3, 2), tensor(2)
BUFFER = torch.zeros(6, 2, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _there(device: torch.device) -> Iterator[None]:
    with moved(globals(), device):
        yield


RANDOM: dict[str, Callable[[Tensor], Tensor]] = {
    "rand": lambda x: x @ W + torch.rand(2),
    "randn_like": lambda x: x @ W + torch.randn_like(B),
    "dropout": lambda x: F.dropout(x, 0.5) @ W,
    "dropout of the prediction": lambda x: F.dropout(x @ W, 0.5),
    "bernoulli": lambda x: x @ W + torch.bernoulli(torch.full((2,), 0.5)),
    "randperm": lambda x: x[torch.randperm(len(x))] @ W,
    "unused": lambda x: (torch.rand(1), x @ W)[1],
    "normal_": lambda x: x @ W + torch.empty(2).normal_(),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers(name: str) -> None:
    refused(RANDOM[name], [W], X, "random numbers")


def test_random_numbers_of_python_and_numpy() -> None:
    refused(lambda x: x @ W + random.random(), [W], X, "random numbers")
    refused(lambda x: x @ W * np.random.rand(), [W], X, "random numbers")
    # A branch that is seldom taken: the draw is seen, whatever comes of it.
    before = random.getstate(), np.random.get_state()[2]
    refused(lambda x: 2 * (x @ W) if random.random() < 1e-9 else x @ W, [W], X, "random numbers")
    refused(lambda x: 2 * (x @ W) if np.random.rand() < 1e-9 else x @ W, [W], X, "random numbers")
    assert (random.getstate(), np.random.get_state()[2]) == before
    refused(lambda x: x @ W + time.perf_counter(), [W], X, "differs")


def test_dropout_in_training_mode() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)).double()
    refused(model, list(model.parameters()), X, "random numbers")


def test_batch_norm_in_training_mode() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).double()
    before = {name: value.clone() for name, value in model.named_buffers()}
    refused(model, list(model[1].parameters()), X)
    assert all(torch.equal(before[name], value) for name, value in model.named_buffers())
    mean, var = torch.zeros(3).double(), torch.ones(3).double()
    refused(lambda x: F.batch_norm(x, mean, var, training=True) @ W, [W], X, "batch norm")
    assert not mean.any()


def writes_buffer(x: Tensor) -> Tensor:
    BUFFER.add_(1)
    return x @ W + BUFFER


def writes_item(x: Tensor) -> Tensor:
    BUFFER[0, 0] = 1.0
    return x @ W


def writes_out(x: Tensor) -> Tensor:
    return torch.matmul(x, W.detach(), out=BUFFER) + x @ W


def writes_x(x: Tensor) -> Tensor:
    return x.mul_(2) @ W


def writes_parameter(x: Tensor) -> Tensor:
    with torch.no_grad():
        W.mul_(0.5)
    return x @ W


def writes_parameter_data(x: Tensor) -> Tensor:
    W.data.clamp_(0, 1)
    return x @ W


def replaces_parameter_data(x: Tensor) -> Tensor:
    W.data = W.data * 0.5
    return x @ W


def replaces_buffer_data(x: Tensor) -> Tensor:
    BUFFER.data = BUFFER.data + 1
    return x @ W + BUFFER[0]


def replaces_x_data(x: Tensor) -> Tensor:
    x.data = x.data * 2
    return x @ W


def sets_grad(x: Tensor) -> Tensor:
    W.grad = None
    return x @ W


@pytest.mark.parametrize(
    "model",
    [
        writes_buffer,
        writes_item,
        writes_out,
        writes_x,
        writes_parameter,
        writes_parameter_data,
        replaces_parameter_data,
        replaces_buffer_data,
        replaces_x_data,
        sets_grad,
    ],
)
def test_writes(model: Callable[[Tensor], Tensor]) -> None:
    x, held, data = X.clone(), BUFFER.clone(), W.data_ptr()
    refused(model, [W], x)
    assert torch.equal(x, X)
    assert torch.equal(BUFFER, held)
    assert W.data_ptr() == data


def test_memory_of_its_own_may_be_replaced() -> None:
    def model(x: Tensor) -> Tensor:
        ones = x.new_ones(2)
        ones.data = ones.data * 2
        return x @ W + ones

    assert isinstance(affine_form(model, [W], X), AffineForm)


def test_reading_grad() -> None:
    refused(lambda x: x @ W if W.grad is None else x @ W * 2, [W], X, "grad")


def test_backward_inside() -> None:
    def model(x: Tensor) -> Tensor:
        (x @ W).sum().backward()
        return x @ W

    refused(model, [W], X, "grad")
    assert W.grad is None


def test_gradients_of_their_own_kind() -> None:
    rows = torch.tensor([0, 1, 1])
    for options in ({"sparse": True}, {"padding_idx": 1}, {"scale_grad_by_freq": True}):
        refused(lambda i, o=options: F.embedding(i, W, **o), [W], rows, "gradient")
    refused(lambda i: F.embedding(i, W, max_norm=0.1), [W], rows, "writes to a parameter")


def test_constants_changed_after_use() -> None:
    def model(x: Tensor) -> Tensor:
        c = x * 1
        h = c @ W
        c.zero_()
        return h + c[:, :2]

    assert isinstance(affine_form(model, [W], X), NotAffine)


def test_views_written_in_place() -> None:
    def into_base(x: Tensor) -> Tensor:
        h = x @ W
        view = h[:, 0]
        h.mul_(2)
        return view

    def into_constant(x: Tensor) -> Tensor:
        out = torch.zeros(6, dtype=torch.float64)
        out[:3] = (x @ W)[:3, 0]
        return out

    refused(into_base, [W], X, "in place")
    refused(into_constant, [W], X)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2, dtype=torch.float64))
        self.calls = 0
        self.outputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x @ self.weight


class Collecting(Counting):
    def forward(self, x: Tensor) -> Tensor:
        self.outputs.append(x)
        return x @ self.weight


class Replacing(Counting):
    def forward(self, x: Tensor) -> Tensor:
        self.extra = x
        return x @ self.weight


@pytest.mark.parametrize("kind", [Counting, Collecting, Replacing])
def test_state_of_a_module(kind: type[Counting]) -> None:
    """Refused, and the state is as it was before."""
    model = kind()
    refused(model, [model.weight], X, "state")
    assert model.calls == 0
    assert model.outputs == []
    assert not hasattr(model, "extra")


COUNT = 0


def test_state_of_a_function() -> None:
    calls, seen = 0, []

    def counting(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return x @ W

    def collecting(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x @ W

    def global_count(x: Tensor) -> Tensor:
        global COUNT
        COUNT += 1
        return x @ W

    for model in (counting, collecting, global_count):
        refused(model, [W], X, "state")
    assert (calls, seen, COUNT) == (0, [], 0)


def test_state_out_of_sight_shows_in_the_prediction() -> None:
    calls = np.zeros(1)

    def model(x: Tensor) -> Tensor:
        calls[0] += 1
        return x @ W + float(calls[0])

    refused(model, [W], X, "differs")


@contextmanager
def hooked(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def test_hooks() -> None:
    def hook(*arguments: Any) -> None:
        """Does nothing, but could."""

    model = nn.Sequential(nn.Linear(3, 2)).double()
    parameters = list(model.parameters())
    modules = torch.nn.modules.module
    for handle in (
        lambda: model.register_forward_hook(hook),
        lambda: model[0].register_forward_hook(hook),
        lambda: model[0].register_forward_pre_hook(hook),
        lambda: model[0].register_full_backward_hook(hook),
        lambda: model[0].register_full_backward_pre_hook(hook),
        lambda: modules.register_module_forward_hook(hook),
        lambda: modules.register_module_forward_pre_hook(hook),
        lambda: modules.register_module_full_backward_hook(hook),
        lambda: model[0].weight.register_hook(hook),
        lambda: model[0].weight.register_post_accumulate_grad_hook(hook),
    ):
        with hooked(handle()):
            refused(model, parameters, X, "hook")
            refused(lambda x: model(x), parameters, X, "hook")
        assert isinstance(affine_form(model, parameters, X), AffineForm)


def test_hooks_on_tensors() -> None:
    def used(x: Tensor) -> Tensor:
        h = x @ W
        h.register_hook(lambda gradient: gradient * 2)
        return h + B

    def last(x: Tensor) -> Tensor:
        h = x @ W
        h.register_hook(print)
        return h

    def before(x: Tensor) -> Tensor:
        h = x @ W
        out = h + B
        h.register_hook(lambda gradient: None)
        return out

    for model in (used, last, before):
        refused(model, [W, B], X, "hook")
