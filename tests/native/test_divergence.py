"""A loss that stops being finite ends a fit there, with the last finite parameters."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gdcore
from gdcore import nn

Problem = tuple[torch.nn.Module, Tensor, Tensor]


def line(dtype: torch.dtype) -> Problem:
    x = torch.linspace(0, 3, 50, dtype=dtype)[:, None]
    return nn.LinearRegression(1).to(dtype), x, 2 * x


def many_outputs(dtype: torch.dtype) -> Problem:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 20, generator=generator, dtype=dtype)
    return nn.LinearRegression(20, 9).to(dtype), x, x[:, :9]


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
    optimizer = torch.optim.SGD(model.parameters(), lr=1.5, momentum=momentum)
    try:
        history = gdcore.fit(model, torch.nn.MSELoss(), optimizer, (x, y), epochs=epochs)
        last = epochs - 1
    except gdcore.DivergenceError as error:
        history, last = error.history, error.epoch
    assert len(history.loss) == last + 1
    return history, [p.detach() for p in model.parameters()]


def first_loss_that_is_not_finite(
    make: Callable[[torch.dtype], Problem], dtype: torch.dtype, momentum: float
) -> int:
    """In a plain PyTorch loop."""
    torch.manual_seed(0)
    model, x, y = make(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.5, momentum=momentum)
    for epoch in range(10_000):
        loss = torch.nn.functional.mse_loss(model(x), y)
        if not loss.isfinite():
            return epoch
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError("the problem does not diverge")


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("make", [line, many_outputs, polynomial, legendre])
@pytest.mark.usefixtures("instruction_set")
def test_divergence(
    make: Callable[[torch.dtype], Problem], dtype: torch.dtype, momentum: float
) -> None:
    epoch = first_loss_that_is_not_finite(make, dtype, momentum)
    history, parameters = fit(make, dtype, 10_000, momentum)
    assert len(history.loss) == epoch + 1
    assert history.loss[:-1].isfinite().all()
    assert not history.loss[-1].isfinite()
    assert all(p.isfinite().all() for p in parameters)

    # They are those whose loss is not finite, or the last before, where they are not finite.
    for epochs in (epoch, epoch - 1):
        whole, expected = fit(make, dtype, epochs, momentum)
        assert torch.equal(whole.loss, history.loss[:epochs])
        if all(p.isfinite().all() for p in expected):
            break
    assert all(map(torch.equal, parameters, expected))
