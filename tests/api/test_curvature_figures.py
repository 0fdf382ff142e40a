"""Curvatures, rates and optima against explicit matrices, and cases solved by hand."""

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gdcore

from ..devices import NOT_EMULATED
from .least_squares import EPS, curvatures_of, flat, matrix_of
from .training_cases import CASES

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

AFFINE = [name for name in CASES if "Legendre" not in name]
LOSSES: dict[str, Any] = {"mean": nn.MSELoss(), "sum": nn.MSELoss(reduction="sum")}
WRITTEN: list[tuple[str, Any]] = [
    ("mean", lambda h, y: torch.mean((h - y) ** 2)),
    ("sum", lambda h, y: (h - y).pow(2).sum()),
    ("sum", functools.partial(nn.functional.mse_loss, reduction="sum")),
]


def close(found: float, expected: float, digits: float = 1e-12) -> bool:
    return abs(found - expected) <= digits * abs(expected)


@pytest.mark.parametrize("reduction", LOSSES)
@pytest.mark.parametrize("name", AFFINE)
def test_every_figure_of_an_explicit_matrix(name: str, reduction: str) -> None:
    """Singular values carry an error of about (n + p) ε of the largest: 30 ε here, and the square
    doubles it relative to the smallest, whose share κ is below 1e3 in these cases."""
    model, x, y = CASES[name](20, torch.float64)
    found = gdcore.curvature(model, LOSSES[reduction], (x, y))
    matrix = matrix_of(model, x)
    expected = curvatures_of(matrix, 1 / y.numel() if reduction == "mean" else 1.0)
    bound = 100 * EPS * math.sqrt(expected[0] / expected[-1])
    assert found.exact
    assert not found.local
    assert found.parameters == found.rank == matrix.shape[1]
    assert np.allclose(found.curvatures.cpu().numpy(), expected, rtol=bound, atol=0)
    assert close(found.largest_curvature, expected[0], bound)
    assert close(found.smallest_curvature, expected[-1], bound)
    assert close(found.condition_number, expected[0] / expected[-1], 2 * bound)
    with torch.no_grad():
        offset = model(x).cpu().numpy().ravel()
    theta = flat({name: p.detach() for name, p in model.named_parameters()})
    target = y.cpu().numpy().ravel() - offset + matrix @ theta
    best, *_ = np.linalg.lstsq(matrix, target)
    assert np.allclose(flat(found.optimum), best, rtol=0, atol=1e-12 * np.abs(best).max())
    left = np.sum((matrix @ best - target) ** 2)
    left = left / y.numel() if reduction == "mean" else left
    assert close(found.optimal_loss, left)
    slow = flat(found.slowest_direction)
    hessian = 2 * (1 / y.numel() if reduction == "mean" else 1.0) * matrix.T @ matrix
    assert np.allclose(hessian @ slow, expected[-1] * slow, rtol=0, atol=1e-12 * expected[0])
    assert close(float(np.linalg.norm(slow)), 1.0)


def test_the_rate_where_a_line_through_the_origin_diverges() -> None:
    """y = W x over 1, 2, 3: the loss is 14/3 (W - 1)², so λ = 28/3 and the limit 3/14 = 0.2142…"""
    x = torch.tensor([[1.0], [2.0], [3.0]])
    found = gdcore.curvature(gdcore.nn.LinearRegression(bias=False), nn.MSELoss(), (x, x))
    assert close(found.largest_curvature, 28 / 3)
    assert close(found.largest_stable_lr(), 3 / 14)
    assert close(found.best_lr, 3 / 28)
    assert (found.rate, found.best_momentum, found.condition_number) == (0.0, 0.0, 1.0)
    assert found.optimal_loss == 0.0
    summed = gdcore.curvature(
        gdcore.nn.LinearRegression(bias=False), nn.MSELoss(reduction="sum"), (x, x)
    )
    assert close(summed.largest_stable_lr(), 1 / 14)


def roots(z: float, momentum: float, nesterov: bool) -> float:
    """The largest root of one direction's recurrence, written as torch's update reads."""
    if nesterov:
        step = [[1 - z - momentum * z, -(momentum**2)], [z, momentum]]
    else:
        step = [[1 - z, -momentum], [z, momentum]]
    return float(np.abs(np.linalg.eigvals(np.array(step))).max())


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9, 0.99])
def test_the_largest_stable_rate_is_where_a_root_leaves_the_unit_circle(
    momentum: float, nesterov: bool
) -> None:
    model, x, y = CASES["Linear"](20, torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    z = found.largest_stable_lr(momentum, nesterov) * found.largest_curvature
    assert roots(0.999 * z, momentum, nesterov) < 1 < roots(1.001 * z, momentum, nesterov)
    decayed = found.largest_stable_lr(momentum, nesterov, weight_decay=0.5)
    assert close(decayed * (found.largest_curvature + 0.5), z)


def test_no_rate_or_momentum_does_better_than_the_best() -> None:
    model, x, y = CASES["Linear"](20, torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    ends = found.largest_curvature, found.smallest_curvature

    def worst(lr: float, momentum: float) -> float:
        return max(roots(lr * curvature, momentum, False) for curvature in ends)

    assert close(worst(found.best_lr, 0.0), found.rate)
    # At the double root the eigenvalues themselves carry √ε.
    best = worst(found.best_momentum_lr, found.best_momentum)
    assert abs(best - found.best_momentum_rate) < 1e-6
    for factor in (0.97, 1.03):
        assert worst(factor * found.best_lr, 0.0) > found.rate
        assert worst(factor * found.best_momentum_lr, found.best_momentum) > best
        assert worst(found.best_momentum_lr, factor * found.best_momentum) > best - 1e-6


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_fewer_rows_than_parameters(rows: int) -> None:
    model = nn.Linear(7, 2, dtype=torch.float64)
    x, y = torch.randn(rows, 7, dtype=torch.float64), torch.randn(rows, 2, dtype=torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    assert (found.rank, found.parameters) == (2 * rows, 16)
    assert found.optimal_loss == 0.0
    start = flat({name: p.detach() for name, p in model.named_parameters()})
    matrix = matrix_of(model, x)
    with torch.no_grad():
        missing = (y - model(x)).cpu().numpy().ravel()
    nearest = start + np.linalg.pinv(matrix) @ missing
    assert np.allclose(flat(found.optimum), nearest, rtol=0, atol=1e-11)


def test_columns_that_say_the_same() -> None:
    x = torch.randn(5000, 3, dtype=torch.float64)
    x = torch.cat([x, 2 * x[:, :1], torch.ones(5000, 1, dtype=torch.float64)], 1)
    found = gdcore.curvature(nn.Linear(5, 1).double(), nn.MSELoss(), (x, x[:, :1]))
    assert (found.rank, found.parameters) == (4, 6)
    expected = curvatures_of(np.column_stack([x.cpu().numpy(), np.ones(5000)]), 1 / 5000)
    assert close(found.smallest_curvature, expected[3], 1e-10)


def test_a_condition_of_1e12_is_seen_whole() -> None:
    """Curvatures 24 digits apart: lost by anything that squares. The singular values carry an
    error of about 100 ε of the largest, 2e-14, which is 2 % of the smallest."""
    left, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((300, 6)))
    right, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))
    sizes = np.geomspace(1, 1e-12, 6)
    x = torch.tensor(left * sizes @ right)
    found = gdcore.curvature(nn.Linear(6, 1, bias=False).double(), nn.MSELoss(), (x, x[:, :1]))
    assert found.rank == 6
    assert abs(math.sqrt(found.condition_number) / 1e12 - 1) < 0.02
    assert np.allclose(np.sqrt(found.curvatures.cpu().numpy() * 150), sizes, rtol=0, atol=2e-14)


def test_nothing_to_learn() -> None:
    found = gdcore.curvature(
        nn.Linear(2, 1, bias=False), nn.MSELoss(), (torch.zeros(4, 2), torch.ones(4, 1))
    )
    assert (found.rank, found.largest_curvature, found.condition_number) == (0, 0.0, 1.0)
    assert found.largest_stable_lr() == math.inf
    assert close(found.optimal_loss, 1.0)
    assert "Any" in str(found)


@pytest.mark.parametrize("shape", ["rows", "elements", "equal elements"])
def test_weights(shape: str) -> None:
    model = nn.Linear(3, 2, dtype=torch.float64)
    x, y = torch.randn(30, 3, dtype=torch.float64), torch.randn(30, 2, dtype=torch.float64)
    weight = torch.rand(30, dtype=torch.float64)
    if shape != "rows":
        weight = weight[:, None].expand(30, 2)
    if shape == "elements":
        weight = weight * torch.rand(30, 2, dtype=torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y, weight))
    each = (weight if weight.dim() == 2 else weight[:, None].expand(30, 2)).cpu().numpy().ravel()
    expected = curvatures_of(matrix_of(model, x) * np.sqrt(each)[:, None], 1 / each.sum())
    assert np.allclose(found.curvatures.cpu().numpy(), expected, rtol=1e-12)
    places = {name: p.detach()[None] for name, p in model.named_parameters()}
    with torch.no_grad():
        residual = (model(x) - y).cpu().numpy().ravel()
    assert close(float(found.loss(places)[0]), float(each @ residual**2 / each.sum()))


@pytest.mark.parametrize("bias", [True, False])
def test_standardised_features(bias: bool) -> None:
    """The figures of features that were standardised by hand, and the same predictions. Means a
    hundred times the deviations cost two digits."""
    x = torch.randn(50, 3, dtype=torch.float64) * torch.tensor([1.0, 100.0, 0.01]) + 1.0
    y = torch.randn(50, 1, dtype=torch.float64)
    model = nn.Linear(3, 1, bias=bias, dtype=torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    mean = x.mean(0) if bias else torch.zeros(3, dtype=torch.float64)
    scaled = (x - mean) / (x - mean).square().mean(0).sqrt()
    expected = gdcore.curvature(model, nn.MSELoss(), (scaled, y))
    other = found.standardised
    assert np.allclose(
        other.curvatures.cpu().numpy(), expected.curvatures.cpu().numpy(), rtol=1e-11
    )
    assert close(other.optimal_loss, expected.optimal_loss, 1e-11)
    assert close(found.optimal_loss, expected.optimal_loss, 1e-11) or bias
    with torch.no_grad():
        begun = float(nn.functional.mse_loss(model(x), y))
    optimizer = torch.optim.SGD(model.parameters(), lr=other.best_lr)
    assert close(float(other.predict(optimizer, 1)[0]), begun, 1e-11)
    assert other.condition_number < found.condition_number


def test_a_part_of_the_parameters() -> None:
    model = nn.Linear(3, 2, dtype=torch.float64)
    model.weight.requires_grad_(False)
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 2, dtype=torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    assert list(found.optimum) == ["bias"]
    assert close(found.largest_curvature, 2 * 20 / 40)
    with torch.no_grad():
        best = (y - x @ model.weight.T).mean(0)
    assert torch.allclose(found.optimum["bias"], best.cpu(), rtol=1e-12)


@pytest.mark.parametrize("begun", [0.0, 0.5, -3e3])
def test_the_least_loss_does_not_depend_on_the_start(begun: float) -> None:
    """Milliseconds since 1970 and targets with a noise of 0.01: far from the start's prediction."""
    generator = np.random.default_rng(0)
    x = 1.7e12 + generator.random((200, 1)) * 3e10
    y = 20 + 0.01 * generator.normal(size=(200, 1))
    matrix = np.hstack([x - x.mean(), np.ones((200, 1))])
    left = np.mean((y - matrix @ np.linalg.lstsq(matrix, y)[0]) ** 2)
    model = nn.Linear(1, 1, dtype=torch.float64)
    nn.init.constant_(model.weight, begun)
    found = gdcore.curvature(model, nn.MSELoss(), (torch.tensor(x), torch.tensor(y)))
    # The QR's columns carry some 200 ε of 20, in residuals of 0.01.
    assert close(found.optimal_loss, left, 2 * 200 * EPS * 20 / 0.01)


@pytest.mark.parametrize(("x_size", "y_size"), [(1e160, 1.0), (1.0, 1e160), (1e-170, 1.0)])
def test_numbers_without_a_square(x_size: float, y_size: float) -> None:
    x = torch.randn(20, 1, dtype=torch.float64)
    data, model = (x * x_size, x * y_size), nn.Linear(1, 1, bias=False, dtype=torch.float64)
    with pytest.raises(ValueError, match="data: expected numbers whose squares a float64 holds"):
        gdcore.curvature(model, nn.MSELoss(), data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((torch.zeros(0, 3), torch.zeros(0, 1)), "at least one row"),
        ((torch.zeros(4, 3), torch.zeros(4)), "the prediction's shape"),
        ((torch.zeros(4, 2), torch.zeros(4, 1)), r"shape \(n, 3\)"),
        ((torch.full((4, 3), torch.nan), torch.zeros(4, 1)), "finite"),
        ((torch.zeros(4, 3), torch.zeros(4, 1), -torch.ones(4)), "weight: expected none below"),
        ((torch.zeros(4, 3), torch.zeros(4, 1), torch.ones(3)), "weight: expected one for each"),
    ],
)
def test_data_that_do_not_fit(data: tuple[Tensor, ...], message: str, device: torch.device) -> None:
    with pytest.raises(ValueError, match=message):
        gdcore.curvature(nn.Linear(3, 1), nn.MSELoss(), tuple(t.to(device) for t in data))


def test_a_data_set_is_its_tensors() -> None:
    x, y = torch.randn(9, 2), torch.randn(9, 1)
    model = nn.Linear(2, 1)
    packed = gdcore.curvature(model, nn.MSELoss(), torch.utils.data.TensorDataset(x, y))
    assert (
        packed.largest_curvature == gdcore.curvature(model, nn.MSELoss(), (x, y)).largest_curvature
    )
    with pytest.raises(TypeError, match="data: expected"):
        gdcore.curvature(model, nn.MSELoss(), x)


@pytest.mark.parametrize(("reduction", "loss_fn"), WRITTEN)
def test_losses_that_are_written_as_functions(reduction: str, loss_fn: Any) -> None:
    x, y, weight = torch.randn(30, 3), torch.randn(30, 1), torch.rand(30)
    linear = nn.Linear(3, 1)
    network = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))
    for model in (linear, network):
        for data in ((x, y), (x, y, weight)):
            found = gdcore.curvature(model, loss_fn, data)
            known = gdcore.curvature(model, LOSSES[reduction], data)
            assert found.local == known.local == (model is network)
            assert close(found.largest_curvature, known.largest_curvature, 1e-5)
    other = gdcore.curvature(linear, lambda h, y: (h - y).abs().sum(), (x, y))
    assert other.local
    with pytest.raises(ValueError, match=r"loss_fn: expected a squared error beside weights"):
        gdcore.curvature(linear, lambda h, y: (h - y).abs().sum(), (x, y, weight))
