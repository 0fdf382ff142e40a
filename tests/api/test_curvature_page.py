"""The printed page: its width, and that every figure on it is the attribute's."""

import math

import pytest
import torch
from torch import nn

import gdcore
from gdcore._insight.curvature_page import epochs_per_digit
from gdcore._insight.figures import rate_figure

from ..devices import NOT_EMULATED

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]


def page_of(model: nn.Module, *data: torch.Tensor) -> tuple[gdcore.Curvature, str]:
    found = gdcore.curvature(model, nn.MSELoss(), data)
    return found, str(found)


def figure(page: str, name: str) -> float:
    (line,) = [line for line in page.splitlines() if line.startswith(name + " ")]
    return float(line[len(name) :].split()[0])


def test_every_figure_is_there() -> None:
    torch.manual_seed(1)
    x = torch.randn(50, 3) * torch.tensor([1.0, 4.0, 0.5]) + 1
    found, page = page_of(nn.Linear(3, 1), x, torch.randn(50, 1))
    for name, value in (
        ("largest curvature", found.largest_curvature),
        ("smallest curvature", found.smallest_curvature),
        ("rank", found.rank),
        ("largest stable rate", found.largest_stable_lr()),
        ("best rate", found.best_lr),
        ("best momentum", found.best_momentum),
        ("loss at the optimum", found.optimal_loss),
    ):
        assert abs(figure(page, name) / value - 1) < 1e-3, name
    assert f"{found.standardised.condition_number:.4g}" in page
    assert "weight[0] = " in page
    assert "exact" in page


@pytest.mark.parametrize("rows", [1, 2, 30])
@pytest.mark.parametrize("columns", [1, 4, 40])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_it_fits_on_a_terminal(rows: int, columns: int, size: float) -> None:
    x, y = torch.randn(rows, columns) * size, torch.randn(rows, 3)
    _, page = page_of(nn.Linear(columns, 3), x, y)
    assert max(map(len, page.splitlines())) <= 80
    assert "nan" not in page
    assert page == page.rstrip()


def test_one_direction_needs_no_momentum() -> None:
    x = torch.tensor([[1.0], [2.0]])
    _, page = page_of(gdcore.nn.LinearRegression(bias=False), x, x)
    assert "momentum would gain nothing" in page
    assert "The data determine all parameters." in page


def test_flat_directions_are_counted() -> None:
    x = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    _, page = page_of(nn.Linear(2, 1, bias=False), x, x[:, :1])
    assert "In 1 direction the loss does not change at all" in page
    assert "this combination" in page


def test_epochs_to_a_tenth() -> None:
    for ratio in (1.5, 46.0, 1e4, 1e12):
        rate = (ratio - 1) / (ratio + 1)
        assert abs(epochs_per_digit(ratio) * -math.log10(rate) - 1) < 1e-3 or ratio > 1e9
    assert abs(epochs_per_digit(1e12) / (1e12 * math.log(10) / 2) - 1) < 1e-9
    assert epochs_per_digit(1.0) == 1.0
    assert epochs_per_digit(math.inf) == math.inf


@pytest.mark.parametrize("years", [(1990, 2021), (2000, 2025), (1900, 2001), (1950, 2001)])
def test_rates_that_are_copied_from_the_page_train(years: tuple[int, int]) -> None:
    """The printed rates and momentum against the limits, which rounding must not pass."""
    x = torch.arange(*years, dtype=torch.float64)[:, None]
    found, page = page_of(nn.Linear(1, 1, dtype=torch.float64), x, 0.1 * x - 190)
    stable, best = figure(page, "largest stable rate"), figure(page, "best rate")
    assert best < stable <= found.largest_stable_lr()
    beta = figure(page, "best momentum")
    (rate,) = [line.split()[-1] for line in page.splitlines() if "at a rate of" in line]
    assert beta < 1
    assert float(rate) < found.largest_stable_lr(beta)


def test_a_rate_that_only_rounding_keeps_from_a_round_number() -> None:
    assert rate_figure(0.5 - 2.0**-54) == "0.5"
    assert rate_figure(0.49999) == "0.4999"


def test_a_momentum_next_to_one_is_a_number() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1e-6]], dtype=torch.float64)
    found, page = page_of(nn.Linear(2, 1, bias=False, dtype=torch.float64), x, x[:, :1])
    beta = figure(page, "best momentum")
    assert found.best_momentum <= beta < 1
    assert (1 - beta) / (1 - found.best_momentum) > 0.99
