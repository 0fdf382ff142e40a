"""Memory that overlaps in something written is refused; where it is only read it may."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Parameter

import gdcore

from ..devices import ON_CPU
from .refusal import nothing_written, refused
from .training_cases import line

pytestmark = pytest.mark.usefixtures("device")

LR = 0.1


def step(model: nn.Module, optimizer: torch.optim.SGD, x: Tensor, y: Tensor) -> Any:
    return gdcore.train_step(model, nn.MSELoss(), optimizer)(x, y)


def fit(model: nn.Module, optimizer: torch.optim.SGD, x: Tensor, y: Tensor) -> Any:
    return gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=2)


WAY = pytest.mark.parametrize("train", [step, fit])
Train = Callable[[nn.Module, torch.optim.SGD, Tensor, Tensor], Any]


def check(train: Train, model: nn.Module, x: Tensor, y: Tensor, argument: str, *parts: str) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    with (
        nothing_written(x, y, model=model, optimizer=optimizer),
        refused(ValueError, argument, "as it is written", *parts),
    ):
        train(model, optimizer, x, y)


@ON_CPU
@WAY
def test_a_parameter_whose_elements_overlap(train: Train) -> None:
    model, x, y = nn.Linear(3, 2), torch.ones(5, 3), torch.zeros(5, 2)
    model.weight = Parameter(torch.ones(1, 3).expand(2, 3))
    check(train, model, x, y, "weight", "overlap")
    model.weight = Parameter(torch.ones(4).as_strided((2, 3), (1, 1)))
    check(train, model, x, y, "weight", "overlap")


@WAY
@pytest.mark.parametrize("data", ["x", "y"])
def test_data_that_share_memory_with_a_parameter(train: Train, data: str) -> None:
    model, x, y = nn.Linear(3, 1), torch.ones(2, 3), torch.zeros(2, 1)
    weight = model.weight.detach()
    shared = weight.expand(2, 3) if data == "x" else weight[0, 1:].unsqueeze(-1)
    tensors = {"x": x, "y": y, data: shared}
    check(train, model, tensors["x"], tensors["y"], "weight", f"apart from {data}'s")


@WAY
def test_parameters_that_share_memory(train: Train) -> None:
    model, x, y = nn.Linear(2, 2), torch.ones(3, 2), torch.zeros(3, 2)
    model.bias = Parameter(model.weight.detach()[0])
    check(train, model, x, y, "bias", "apart from weight's")


@WAY
@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_a_frozen_parameter_that_shares_memory_with_one_that_is_trained(
    train: Train, frozen: str
) -> None:
    """Written through the other, it would change within the step."""
    model, x, y = nn.Linear(2, 2), torch.ones(3, 2), torch.zeros(3, 2)
    model.bias = Parameter(model.weight.detach()[0])
    model.get_parameter(frozen).requires_grad_(False)
    trained = "bias" if frozen == "weight" else "weight"
    check(train, model, x, y, trained, f"apart from {frozen}'s")


@WAY
def test_one_parameter_in_two_places(train: Train) -> None:
    """Its gradient is the sum of two: autograd's step, not one natively with one of them."""
    model = gdcore.nn.LegendreRegression()
    model.a = nn.Parameter(torch.tensor(0.5))
    model.c = model.a
    other = copy.deepcopy(model)
    x = torch.linspace(-1, 1, 5)
    train(model, torch.optim.SGD(model.parameters(), lr=LR), x, x.clone())
    plain = torch.optim.SGD(other.parameters(), lr=LR, foreach=False)
    for _ in range(1 if train is step else 2):
        plain.zero_grad()
        nn.functional.mse_loss(other(x), x).backward()
        plain.step()
    assert model.c is model.a
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        # Numbers of order one, in fewer than 2 * 64 operations for each parameter.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=128 * 2**-24)
    with refused(ValueError, "model", "once"):
        gdcore.fit(
            model,
            nn.MSELoss(),
            torch.optim.SGD(model.parameters(), lr=LR),
            (x, x.clone()),
            epochs=1,
            strict=True,
        )


@WAY
@pytest.mark.parametrize("other", ["its parameter", "itself", "x"])
def test_a_momentum_buffer_that_shares_memory(
    train: Train, other: str, request: pytest.FixtureRequest
) -> None:
    model, x, y = nn.Linear(3, 1), torch.ones(4, 3), torch.zeros(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    step(model, optimizer, x, y)
    buffer = {
        "its parameter": model.weight.detach(),
        "itself": torch.zeros(1, 1).expand(1, 3),
        "x": x[:1],
    }[other]
    optimizer.state[model.weight]["momentum_buffer"] = buffer
    on_cpu = request.node.callspec.params["device"] == "cpu"
    told = refused(ValueError, "momentum_buffer", "as it is written")
    if other == "itself" and not on_cpu:  # where none with strides of its own is taken
        told = refused(ValueError, "optimizer", "momentum_buffer contiguous")
    with nothing_written(x, y, model=model, optimizer=optimizer), told:
        train(model, optimizer, x, y)


@WAY
def test_memory_that_is_only_read_may_overlap(train: Train) -> None:
    model, x, _ = line(rows=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    train(model, optimizer, x, x)
    train(model, optimizer, x[:1].expand(4, 1), x)
    frozen = model.get_parameter("weight").requires_grad_(False)
    train(model, optimizer, frozen.detach().expand(4, 1), x)


@WAY
def test_neighbours_in_one_storage_are_apart(train: Train) -> None:
    """Parameters that are views of one flat tensor, and data beside them."""
    storage = torch.arange(12.0) / 12
    model = nn.Linear(2, 2)
    model.weight = Parameter(storage[:4].view(2, 2))
    model.bias = Parameter(storage[4:6])
    x = storage[6:].view(3, 2)
    before = storage.clone()
    train(model, torch.optim.SGD(model.parameters(), lr=LR), x, torch.zeros(3, 2))
    assert (storage != before).tolist() == [True] * 6 + [False] * 6


@ON_CPU
def test_an_optimizer_checks_every_group_before_it_writes() -> None:
    good, bad = Parameter(torch.ones(2)), Parameter(torch.ones(1).expand(3))
    optimizer = gdcore.optim.SGD([{"params": [good]}, {"params": [bad]}], lr=LR, momentum=0.9)
    good.grad, bad.grad = torch.ones(2), torch.ones(3)
    with (
        nothing_written(good, bad, optimizer=optimizer),
        refused(RuntimeError, "parameter", "overlap", "as it is written"),
    ):
        optimizer.step()


@ON_CPU
@pytest.mark.parametrize("kind", ["parameter", "grad"])
def test_an_optimizer_whose_buffer_shares_memory(kind: str) -> None:
    parameter = Parameter(torch.ones(3))
    optimizer = gdcore.optim.SGD([parameter], lr=LR, momentum=0.9)
    parameter.grad = torch.ones(3)
    shared = parameter.detach() if kind == "parameter" else parameter.grad
    optimizer.state[parameter]["momentum_buffer"] = shared
    with (
        nothing_written(parameter, optimizer=optimizer),
        refused(RuntimeError, "momentum_buffer", f"apart from {kind}'s"),
    ):
        optimizer.step()
