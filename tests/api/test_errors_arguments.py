"""Arguments that are not tensors: counts, pairs, rates; and what fit says of no rows at all."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gdcore

from .refusal import nothing_written, refused
from .training_cases import Case, line


def fit(case: Case, data: Any = None, **options: Any) -> gdcore.History:
    model, x, y = case
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with nothing_written(x, y, model=model, optimizer=optimizer):
        settings = {"epochs": 3, **options}
        return gdcore.fit(
            model, nn.MSELoss(), optimizer, (x, y) if data is None else data, **settings
        )


pytestmark = pytest.mark.usefixtures("device")

NOT_COUNTS = [1.0, True, False, "3", None, np.bool_(True), np.float64(3), torch.tensor(3)]


@pytest.mark.parametrize("count", NOT_COUNTS, ids=repr)
@pytest.mark.parametrize("argument", ["epochs", "record_every"])
def test_a_count_that_is_not_an_int(argument: str, count: Any) -> None:
    if argument == "record_every" and count is None:
        return  # means: never
    with refused(TypeError, argument, "an int", type(count).__name__):
        fit(line(), **{argument: count})


@pytest.mark.parametrize(("argument", "least"), [("epochs", 0), ("record_every", 1)])
@pytest.mark.parametrize("below", [1, 5, 10**12])
def test_a_count_out_of_range(argument: str, least: int, below: int) -> None:
    count = least - below
    with refused(ValueError, argument, f"at least {least}", str(count)):
        fit(line(), **{argument: count})


def test_epochs_must_be_named() -> None:
    model, x, y = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="epochs"):
        gdcore.fit(model, nn.MSELoss(), optimizer, (x, y))  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), 3)  # type: ignore[call-arg]


def test_data_that_are_not_a_pair() -> None:
    case = line()
    _, x, y = case
    for data, got in (
        ((x,), "1 of them"),
        ((x, y, y, y), "4 of them"),
        ((), "0 of them"),
        (x, "Tensor"),
        ({"x": x, "y": y}, "dict"),
        (iter((x, y)), "tuple_iterator"),
        (1, "int"),
    ):
        with refused(TypeError, "data", "(x, y)", got):
            fit(case, data=data)


def test_a_list_of_two_will_do() -> None:
    model, x, y = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data: Any = [x, y]
    assert len(gdcore.fit(model, nn.MSELoss(), optimizer, data, epochs=2).loss) == 2


@pytest.mark.parametrize(
    "build", [lambda: nn.Linear(1, 1), lambda: gdcore.nn.PolynomialRegression(2)]
)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_no_rows(reduction: str, build: Callable[[], nn.Module]) -> None:
    """fit has nothing to fit; a step does what PyTorch does: NaN for the mean, zero for the sum."""
    model = build()
    linear = isinstance(model, nn.Linear)
    x = y = torch.empty((0, 1) if linear else 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_fn = nn.MSELoss(reduction=reduction)
    with (
        nothing_written(model=model, optimizer=optimizer),
        refused(ValueError, "data", "at least one row", str(tuple(x.shape))),
    ):
        gdcore.fit(model, loss_fn, optimizer, (x, y), epochs=1)
    before = [p.detach().clone() for p in model.parameters()]
    loss = gdcore.train_step(model, loss_fn, optimizer)(x, y)
    assert loss.isnan() if reduction == "mean" else loss == 0
    assert all(map(torch.equal, model.parameters(), before))


def test_no_rows_still_decay() -> None:
    """The gradient of nothing is zero; weight decay is not part of it. As in PyTorch."""
    results = []
    for native in (True, False):
        torch.manual_seed(0)
        model, x, y = line()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=0.5)
        if native:
            gdcore.train_step(model, nn.MSELoss(), optimizer)(x[:0], y[:0])
        else:
            nn.functional.mse_loss(model(x[:0]), y[:0]).backward()
            optimizer.step()
        results.append([p.detach() for p in model.parameters()])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("kind", [gdcore.optim.SGD, torch.optim.SGD])
def test_options_out_of_range(kind: type[torch.optim.SGD]) -> None:
    """torch's own errors, the same from ours."""
    parameter = nn.Parameter(torch.ones(1))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"lr": -0.5}, "Invalid learning rate: -0.5"),
        ({"lr": 0.1, "momentum": -1.0}, "Invalid momentum value: -1.0"),
        ({"lr": 0.1, "weight_decay": -1.0}, "Invalid weight_decay value: -1.0"),
        ({"lr": 0.1, "nesterov": True}, "Nesterov momentum requires a momentum"),
        ({"lr": torch.ones(2)}, "Tensor lr must be 1-element"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            kind([parameter], **options)


@pytest.mark.parametrize("native", [True, False])
def test_a_rate_below_zero_set_by_hand_ascends_as_in_torch(native: bool) -> None:
    """w = 1, x = 1, y = 0: the gradient is 2, exact in binary."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.param_groups[0]["lr"] = -0.5
    x, y = torch.ones(1, 1), torch.zeros(1, 1)
    if native:
        gdcore.train_step(model, nn.MSELoss(), optimizer)(x, y)
    else:
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    assert model.weight.item() == 2.0


FLATTENS = [(1, 0), (0, 2), (2, -1), (-3, 1), (0, 3), (0, -3)]


@pytest.mark.parametrize(("start", "end"), FLATTENS)
def test_dimensions_that_a_prediction_does_not_have(start: int, end: int) -> None:
    """torch's own Flatten fails on them, and its error is the one that comes."""
    model = nn.Sequential(nn.Linear(1, 2), nn.Flatten(start, end))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.ones(3, 1)
    with pytest.raises((IndexError, RuntimeError)):
        model(x)
    for y in (torch.ones(3, 2), torch.ones(6)):
        with (
            nothing_written(model=model, optimizer=optimizer),
            pytest.raises((IndexError, RuntimeError)),
        ):
            gdcore.train_step(model, nn.MSELoss(), optimizer)(x, y)


@pytest.mark.parametrize("start", [-2, -1, 0, 1])
@pytest.mark.parametrize("end", [-2, -1, 0, 1])
def test_every_flatten_means_what_it_means_in_torch(start: int, end: int) -> None:
    if start % 2 > end % 2:
        return  # above
    model = nn.Sequential(nn.Linear(1, 2), nn.Flatten(start, end))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(3, 1)
    prediction = model(x).detach()
    step = gdcore.train_step(model, nn.MSELoss(), optimizer)
    other = torch.zeros(3, 2) if prediction.dim() == 1 else torch.zeros(6)
    with refused(ValueError, "y", str(tuple(prediction.shape)), str(tuple(other.shape))):
        step(x, other)
    # The target is the prediction but for rounding (of values of order one, squared).
    assert step(x, prediction) < 2.0**-40
