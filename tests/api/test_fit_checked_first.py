"""What is only used after the first update, or row by row, is checked before it."""

import math
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, TensorDataset

import gdcore

from .drawing import drawn_on_cpu
from .refusal import nothing_written, refused

pytestmark = pytest.mark.usefixtures("device")

METHODS = ("stepwise", "compressed", "eager")
Metric = Callable[[Tensor, Tensor], Any]


def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(20, n, generator=generator, device="cpu") for n in (3, 1))
    there = torch.get_default_device()
    return x.to(there), y.to(there)


class Own(nn.Module):
    """Whether a call of it leaves something behind is not known: it is not tried."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(3, 1), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return torch.relu(self.linear(x))


def fit(model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> gdcore.History:
    given: dict[str, Any] = {"data": rows(), "epochs": 3, **options}
    return gdcore.fit(model, nn.MSELoss(), optimizer, given.pop("data"), **given)


def refuses(
    model: nn.Module, kind: type[Exception], argument: str, *parts: str, **options: Any
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    random = torch.get_rng_state()
    with (
        nothing_written(model=model, optimizer=optimizer),
        refused(kind, argument, *parts),
    ):
        fit(model, optimizer, **options)
    assert torch.equal(torch.get_rng_state(), random)


def undoes(kind: type[Exception], argument: str, *parts: str, data: Any) -> None:
    """As `refuses`, for what shows when the epoch has begun: all values are put back."""
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    before = [p.detach().clone() for p in model.parameters()]
    random = torch.get_rng_state()
    with refused(kind, argument, *parts), drawn_on_cpu():
        fit(model, optimizer, data=data)
    assert all(map(torch.equal, before, model.parameters()))
    assert not optimizer.state
    assert torch.equal(torch.get_rng_state(), random)


Given = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
VALIDATION: dict[str, tuple[Given, type[Exception], tuple[str, ...]]] = {
    "columns": (lambda x, y: (torch.randn(5, 4), y[:5]), ValueError, ("(5, 4)",)),
    "a vector y": (lambda x, y: (x, y[:, 0]), ValueError, ("(20, 1)", "(20,)")),
    "other rows": (lambda x, y: (x, y[:7]), ValueError, ("(20, 1)", "(7, 1)")),
    "dtype": (lambda x, y: (x.double(), y.double()), TypeError, ("float64",)),
    "zero weights": (lambda x, y: (x, y, torch.zeros(20)), ValueError, ("not 0",)),
    "NaN weights": (lambda x, y: (x, y, torch.full((20,), math.nan)), ValueError, ("finite",)),
}
RELU = "a network"


@pytest.mark.parametrize("method", [*METHODS, RELU])
@pytest.mark.parametrize("what", VALIDATION)
def test_validation(what: str, method: str) -> None:
    given, kind, parts = VALIDATION[what]
    model = nn.Sequential(nn.Linear(3, 1), nn.ReLU()) if method == RELU else nn.Linear(3, 1)
    options = {} if method == RELU else {"method": method}
    refuses(model, kind, "validation", *parts, validation=given(*rows()), **options)


def test_weights_of_validation_that_the_loss_does_not_take() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    with nothing_written(model=model, optimizer=optimizer), refused(ValueError, "validation"):
        given = (*rows(), torch.ones(20))
        gdcore.fit(model, nn.L1Loss(), optimizer, rows(), epochs=2, validation=given)


def test_weights_of_validation_with_a_squared_error_of_ones_own() -> None:
    model, weight, (x, y) = nn.Linear(3, 1), torch.linspace(0, 1, 20), rows()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    history = gdcore.fit(
        model,
        lambda h, y: torch.mean((h - y) ** 2),
        optimizer,
        (x, y),
        epochs=1,
        validation=(x, y, weight),
    )
    squares = (model(x) - y).detach().squeeze(1).double() ** 2
    expected = (weight * squares).sum() / weight.sum()
    torch.testing.assert_close(history.validation["loss"][-1], expected.cpu(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("what", ["a vector y", "other rows"])
def test_validation_of_a_model_that_is_not_tried(what: str) -> None:
    model, given = Own(), VALIDATION[what][0](*rows())
    refuses(model, ValueError, "validation", str(tuple(given[1].shape)), validation=given)
    assert model.calls == 0


def test_a_model_of_ones_own_is_called_for_the_epochs_alone() -> None:
    model = Own()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.01), validation=rows(), method="eager")
    assert model.calls == 6


def test_a_trial_draws_nothing() -> None:
    """A metric that draws: the fit's generator goes on as if it had not been tried."""

    def noisy(prediction: Tensor, y: Tensor) -> Tensor:
        return torch.rand(())

    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    torch.manual_seed(4)
    expected = [torch.rand(()).item() for _ in range(3)]
    torch.manual_seed(4)
    history = fit(model, optimizer, validation=rows(), metrics=noisy)
    assert history.validation["noisy"].tolist() == expected


METRICS: dict[str, tuple[Metric, type[Exception], str]] = {
    "raises": (lambda p, y: 1 / 0, ValueError, "ZeroDivisionError"),
    "many": (lambda p, y: p, TypeError, "(20, 1)"),
    "nothing": (lambda p, y: None, TypeError, "NoneType"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", METRICS)
def test_metrics(what: str, method: str) -> None:
    metric, kind, got = METRICS[what]
    options = {"validation": rows(), "metrics": metric, "method": method}
    refuses(nn.Linear(3, 1), kind, "metrics", got, **options)


WEIGHTS = {"zero": (0.0, "not 0"), "NaN": (math.nan, "finite"), "infinite": (math.inf, "finite")}


@pytest.mark.parametrize("batch_size", [None, 6])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", WEIGHTS)
def test_weights(what: str, method: str, batch_size: int | None) -> None:
    if batch_size is not None and method == "compressed":
        pytest.skip("not of minibatches")
    value, said = WEIGHTS[what]
    weight = torch.full((20,), value)
    options = {"method": method, "batch_size": batch_size}
    refuses(nn.Linear(3, 1), ValueError, "weight", said, weight=weight, **options)
    refuses(nn.Linear(3, 1), ValueError, "weight", said, data=(*rows(), weight), **options)


@pytest.mark.parametrize("method", ["auto", "stepwise", "compressed"])
def test_weights_that_cancel(method: str) -> None:
    """A mean would be divided by their sum; a sum is not."""
    weight = torch.tensor([1.0, -1.0]).repeat(10)
    refuses(nn.Linear(3, 1), ValueError, "weight", "cancel", weight=weight, method=method)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    summed = nn.MSELoss(reduction="sum")
    history = gdcore.fit(model, summed, optimizer, rows(), epochs=3, weight=weight)
    assert history.loss.isfinite().all()


def test_weights_that_are_read() -> None:
    weight = torch.ones(20)
    weight[13] = math.nan
    each = list(zip(*rows(), weight, strict=True))
    undoes(ValueError, "weight", "finite", data=DataLoader(each, 4))  # type: ignore[arg-type]


SAMPLERS: dict[str, tuple[Any, type[Exception], str]] = {
    "floats": ([1.0, 2.0], TypeError, "float"),
    "bools": ([True, False], TypeError, "bool"),
    "tensors of bools": ([torch.tensor(True)], TypeError, "bool"),
    "tensors of floats": ([torch.tensor(1.0)], TypeError, "Tensor"),
    "none": ([], ValueError, "0"),
    "past the last row": ([3, 20], ValueError, "from 0 to 19, got 20"),
    "before the first": ([0, -21], ValueError, "from 0 to 19, got -21"),
    "of more rows": (RandomSampler(range(30)), ValueError, "from 0 to 19, got 2"),  # type: ignore[arg-type]
    "of more rows in order": (SequentialSampler(range(30)), ValueError, "got 20"),  # type: ignore[arg-type]
    "too few for a batch": ([1, 2, 3], ValueError, "at least 4 of the rows, got 3"),
}


@pytest.mark.parametrize("what", SAMPLERS)
def test_samplers(what: str) -> None:
    sampler, kind, got = SAMPLERS[what]
    last = what == "too few for a batch"
    loader = DataLoader(TensorDataset(*rows()), 4, sampler=sampler, drop_last=last)
    undoes(kind, "sampler", got, data=loader)


def test_integers_of_other_libraries() -> None:
    three, histories = np.int64(3), []
    for count in (3, three):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        stop = gdcore.stop_when(no_improvement_for=count)  # type: ignore[arg-type]
        options = {"epochs": count, "batch_size": count, "record_every": count, "stop": stop}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        histories.append(fit(model, optimizer, **options))
    assert torch.equal(histories[0].loss, histories[1].loss)
    assert type(histories[1].record_every) is int
    with refused(TypeError, "epochs", "bool"):
        fit(model, optimizer, epochs=np.bool_(True))


def test_ctrl_c_while_the_model_is_recognised() -> None:
    weight = torch.zeros(3, 1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def model(x: Tensor) -> Tensor:
        signal.raise_signal(signal.SIGINT)
        return x @ weight

    with nothing_written(weight, optimizer=optimizer), pytest.raises(KeyboardInterrupt) as info:
        gdcore.fit(model, nn.MSELoss(), optimizer, rows(), epochs=3, record_every=1)
    history = info.value.history  # type: ignore[attr-defined]
    assert isinstance(history, gdcore.History)
    assert len(history.loss) == len(history.lr) == 0
    assert "0 epochs" in repr(history)
