"""A loss that stops being finite ends a fit there, with the last finite parameters."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gdcore
from gdcore import nn

from ..devices import CUDA

LR = 50.0
EPOCHS = 1_000

Problem = tuple[torch.nn.Module, Tensor, Tensor]


def line(dtype: torch.dtype) -> Problem:
    x = torch.linspace(0, 3, 50, dtype=dtype)[:, None]
    return nn.LinearRegression(1).to(dtype), x, 2 * x


def many_outputs(dtype: torch.dtype) -> Problem:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 20, generator=generator, dtype=dtype, device="cpu")
    x = x.to(torch.get_default_device())
    return nn.LinearRegression(20, 9).to(dtype), x, 100 * x[:, :9]


def polynomial(dtype: torch.dtype) -> Problem:
    x = torch.linspace(-2, 2, 200, dtype=dtype)
    return nn.PolynomialRegression(5).to(dtype), x, torch.sin(x)


def legendre(dtype: torch.dtype) -> Problem:
    x = torch.linspace(-2, 2, 200, dtype=dtype)
    return nn.LegendreRegression().to(dtype), x, torch.sin(x)


def fit(
    make: Callable[[torch.dtype], Problem], dtype: torch.dtype, epochs: int, momentum: float
) -> tuple[gdcore.History, list[Tensor]]:
    torch.manual_seed(0)
    model, x, y = make(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=momentum)
    try:
        history = gdcore.fit(
            model, torch.nn.MSELoss(), optimizer, (x, y), epochs=epochs, method="stepwise"
        )
        last = epochs - 1
    except gdcore.DivergenceError as error:
        history, last = error.history, error.epoch
    assert len(history.loss) == last + 1
    return history, [p.detach() for p in model.parameters()]


def first_epochs_that_overflow(
    make: Callable[[torch.dtype], Problem], dtype: torch.dtype, momentum: float
) -> tuple[int, int]:
    """Where, in a plain loop in float64, Σ r² leaves the dtype's range, and where its mean does."""
    torch.manual_seed(0)
    model, x, y = make(dtype)
    model, x, y = model.double(), x.double(), y.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=momentum)
    first_sum = None
    for epoch in range(EPOCHS):
        squares = (model(x) - y).square()
        if first_sum is None and not squares.sum().to(dtype).isfinite():
            first_sum = epoch
        if first_sum is not None and not squares.mean().to(dtype).isfinite():
            return first_sum, epoch
        optimizer.zero_grad()
        squares.mean().backward()
        optimizer.step()
    raise AssertionError("the problem does not diverge")


MOMENTUM = pytest.mark.parametrize("momentum", [0.0, 0.9])
MAKE = pytest.mark.parametrize("make", [line, many_outputs, polynomial, legendre])
TOO_HIGH = pytest.mark.filterwarnings("ignore:optimizer. lr=50 is above:RuntimeWarning")


@MOMENTUM
@MAKE
@pytest.mark.usefixtures("instruction_set")
@TOO_HIGH
def test_divergence(
    make: Callable[[torch.dtype], Problem], dtype: torch.dtype, momentum: float
) -> None:
    check(make, dtype, momentum)


@MOMENTUM
@MAKE
@pytest.mark.parametrize("device", ["emulated", CUDA], indirect=True)
@pytest.mark.usefixtures("device")
@TOO_HIGH
def test_divergence_on_a_device(
    make: Callable[[torch.dtype], Problem], dtype: torch.dtype, momentum: float
) -> None:
    check(make, dtype, momentum)


def check(make: Callable[[torch.dtype], Problem], dtype: torch.dtype, momentum: float) -> None:
    earliest, latest = first_epochs_that_overflow(make, dtype, momentum)
    history, parameters = fit(make, dtype, EPOCHS, momentum)
    assert earliest <= len(history.loss) - 1 <= latest
    assert history.loss[:-1].isfinite().all()
    assert not history.loss[-1].isfinite()
    assert all(p.isfinite().all() for p in parameters)

    # They are those whose loss is not finite, or the last before, where they are not finite.
    for epochs in (len(history.loss) - 1, len(history.loss) - 2):
        whole, expected = fit(make, dtype, epochs, momentum)
        assert torch.equal(whole.loss, history.loss[:epochs])
        if all(p.isfinite().all() for p in expected):
            break
    assert all(map(torch.equal, parameters, expected))
