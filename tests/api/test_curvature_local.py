"""Models that are not affine: the Hessian at the parameters, and the page that says so."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdcore
from gdcore._insight import hessian as _hessian

from ..devices import NOT_EMULATED

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]


def hessian(model: nn.Module, loss_fn: Any, x: Tensor, y: Tensor) -> Tensor:
    """By torch.autograd.functional, as one matrix."""
    values = {name: p.detach() for name, p in model.named_parameters()}
    sizes = [value.numel() for value in values.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split(sizes)
        given = {n: p.reshape(v.shape) for (n, v), p in zip(values.items(), parts, strict=True)}
        found: Tensor = loss_fn(torch.func.functional_call(model, given, (x,)), y)
        return found

    flat = torch.cat([value.reshape(-1) for value in values.values()])
    found: Tensor = torch.autograd.functional.hessian(loss, flat)
    return found


def network(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1)).double()


def test_legendre_at_its_start() -> None:
    x = torch.linspace(-math.pi, math.pi, 2000, dtype=torch.float64)
    model, loss_fn = gdcore.nn.LegendreRegression().double(), nn.MSELoss(reduction="sum")
    found = gdcore.curvature(model, loss_fn, (x, x.sin()))
    expected = torch.linalg.eigvalsh(hessian(model, loss_fn, x, x.sin()))
    assert found.local
    assert not found.exact
    assert found.reason
    assert abs(found.largest_curvature / expected[-1].item() - 1) < 1e-10
    assert abs(found.smallest_curvature - expected[0].item()) < 1e-10 * expected[-1].item()
    assert (found.rank, found.parameters) == (4, 4)


@pytest.mark.parametrize("width", [4, 12])
def test_lanczos_finds_the_extremes(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(40, 3, dtype=torch.float64), torch.randn(40, 1, dtype=torch.float64)
    model = network(width)
    expected = torch.linalg.eigvalsh(hessian(model, nn.MSELoss(), x, y))
    whole = gdcore.curvature(model, nn.MSELoss(), (x, y))
    monkeypatch.setattr(_hessian, "_ALL", 0)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    for each in (whole, found):
        assert abs(each.largest_curvature / expected[-1].item() - 1) < 1e-9
        assert abs(each.smallest_curvature - expected[0].item()) < 1e-9 * expected[-1].item()
    assert found.smallest_curvature < 0
    assert found.condition_number == math.inf
    assert "bends down" in str(found)


def test_a_loss_of_another_kind() -> None:
    """The Hessian of a logistic regression, by its formula: xᵀ diag(p (1 - p)) x / n."""
    x, y = torch.randn(30, 2, dtype=torch.float64), torch.randint(0, 2, (30, 1)).double()
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    found = gdcore.curvature(model, nn.BCEWithLogitsLoss(), (x, y))
    with torch.no_grad():
        p = model(x).sigmoid()
    expected = torch.linalg.eigvalsh(x.T @ (p * (1 - p) * x) / 30)
    assert found.local
    assert abs(found.largest_curvature / expected[-1].item() - 1) < 1e-12
    assert "BCEWithLogitsLoss" in found.reason


def test_a_hessian_of_an_affine_model_is_its_curvature() -> None:
    """Two ways that share nothing."""
    model = nn.Linear(3, 2, dtype=torch.float64)
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 2, dtype=torch.float64)
    weight = torch.rand(20, 2, dtype=torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y, weight))
    other = _hessian.hessian_extremes(model, nn.MSELoss(), x, y, weight, list(model.parameters()))
    assert abs(other.largest / found.largest_curvature - 1) < 1e-12
    assert abs(other.smallest / found.smallest_curvature - 1) < 1e-12
    assert other.rank == found.rank == 8


def test_what_only_an_affine_model_has() -> None:
    x, y = torch.randn(9, 3, dtype=torch.float64), torch.randn(9, 1, dtype=torch.float64)
    model = network(2)
    before = [p.detach().clone() for p in model.parameters()]
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for ask in (
        lambda: found.best_lr,
        lambda: found.rate,
        lambda: found.best_momentum,
        lambda: found.best_momentum_lr,
        lambda: found.best_momentum_rate,
        lambda: found.optimum,
        lambda: found.optimal_loss,
        lambda: found.slowest_direction,
        lambda: found.standardised,
        lambda: found.predict(optimizer, 3),
        lambda: found.epochs_to(0.1, optimizer),
    ):
        with pytest.raises(ValueError, match="expected a squared error of a model that is affine"):
            ask()
    page = str(found)
    assert "local" in page
    assert "best rate" not in page
    assert "local" in repr(found)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_a_loss_without_curvature_promises_no_rate() -> None:
    x = torch.randn(30, 3)
    found = gdcore.curvature(nn.Linear(3, 1), nn.L1Loss(), (x, x[:, :1]))
    assert found.rank == 0
    page = " ".join(str(found).split())
    assert "Any:" not in page
    assert "its curvature tells nothing of the rate" in page
    assert "condition number" not in page


def test_the_random_numbers_of_the_program_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_hessian, "_ALL", 0)
    state = torch.get_rng_state()
    x = torch.zeros(2, 3, dtype=torch.float64)
    model = network(2)
    state = torch.get_rng_state()
    gdcore.curvature(model, nn.MSELoss(), (x, x[:, :1]))
    assert torch.equal(torch.get_rng_state(), state)


def test_buffers_are_left_alone() -> None:
    x = torch.randn(9, 3)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    gdcore.curvature(model, nn.MSELoss(), (x, x[:, :1]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_errors() -> None:
    x = torch.randn(9, 3)
    with pytest.raises(ValueError, match="model: expected a parameter that requires grad"):
        gdcore.curvature(nn.Tanh(), nn.MSELoss(), (x, x))
    with pytest.raises(ValueError, match=r"loss_fn: expected a loss of shape \(\)"):
        gdcore.curvature(nn.Linear(3, 3), nn.MSELoss(reduction="none"), (x, x))
