"""What the curvature says is what the descent does."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn, optim

import gdcore
from gdcore.lessons.insight import Curvature, curvature, local_curvatures
from gdcore.lessons.language import language
from gdcore.lessons.running import Report

from .conftest import Command


def problem(bias: bool = True) -> tuple[nn.Linear, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(3)
    x = torch.randn(20, 3, dtype=torch.float64) * torch.tensor([1.0, 3.0, 0.5]) + 1.0
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + torch.randn(20, 1)
    return nn.Linear(3, 1, bias=bias, dtype=torch.float64), (x, y)


def hessian(
    model: nn.Module, reduction: str, data: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """By autograd, twice."""
    parameters = list(model.parameters())
    cost = nn.MSELoss(reduction=reduction)(model(data[0]), data[1])
    slopes = torch.cat(
        [g.flatten() for g in torch.autograd.grad(cost, parameters, create_graph=True)]
    )
    rows = [torch.autograd.grad(slope, parameters, retain_graph=True) for slope in slopes]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_curvatures_are_the_eigenvalues_of_the_hessian(reduction: str) -> None:
    model, data = problem()
    loss_fn = nn.MSELoss(reduction=reduction)
    found = curvature(model, loss_fn, data)
    want = torch.linalg.eigvalsh(hessian(model, reduction, data)).flip(0)
    # Squares of singular values good to a few roundings of the largest.
    assert torch.allclose(found.curvatures, want, rtol=0, atol=1e-13 * want[0].item())
    assert torch.allclose(
        local_curvatures(model, loss_fn, data), want.flip(0), atol=1e-13 * want[0]
    )


def test_the_optimum_has_no_slope_and_its_cost_is_the_least() -> None:
    model, data = problem()
    found = curvature(model, nn.MSELoss(), data)
    weight, bias = found.optimum[:3], found.optimum[3:]
    model.load_state_dict({"weight": weight[None], "bias": bias})
    cost = nn.MSELoss()(model(data[0]), data[1])
    assert cost.item() == pytest.approx(found.optimal_loss, rel=1e-13)
    cost.backward()
    assert model.weight.grad is not None
    assert model.weight.grad.abs().max() < 1e-13 * found.largest_curvature
    off = found.optimum + 0.1
    model.load_state_dict({"weight": off[None, :3], "bias": off[3:]})
    higher = nn.MSELoss()(model(data[0]), data[1]).item()
    assert higher - found.optimal_loss == pytest.approx(found.excess(off), rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_divergence_begins_at_the_largest_stable_rate(beta: float, nesterov: bool) -> None:
    if nesterov and beta == 0:
        pytest.skip("torch has no Nesterov step without momentum")
    model, data = problem()
    limit = curvature(model, nn.MSELoss(), data).largest_stable_lr(beta, nesterov)
    costs = []
    for lr in (0.999 * limit, 1.001 * limit):
        model, data = problem()
        optimizer = optim.SGD(model.parameters(), lr=lr, momentum=beta, nesterov=nesterov)
        costs.append(gdcore.fit(model, nn.MSELoss(), optimizer, data, epochs=5_000).loss)
    assert costs[0][-1] < costs[0][0]
    assert costs[1][-1] > costs[1][2_500] > costs[1][1_000]


@pytest.mark.parametrize(("beta", "nesterov"), [(0.0, False), (0.6, False), (0.6, True)])
def test_epochs_to_a_tolerance_are_those_of_a_descent(beta: float, nesterov: bool) -> None:
    """Started in the slowest direction, at a rate where that is the last to arrive."""
    model, data = problem()
    found = curvature(model, nn.MSELoss(), data)
    begin = found.optimum + found.slowest_direction
    model.load_state_dict({"weight": begin[None, :3], "bias": begin[3:]})
    lr = 0.2 * found.largest_stable_lr(beta, nesterov)
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=beta, nesterov=nesterov)
    epochs = found.epochs_to(0.01, optimizer)
    assert epochs is not None
    history = gdcore.fit(model, nn.MSELoss(), optimizer, data, epochs=epochs, record_every=1)
    path = torch.cat([history.parameters["weight"].flatten(1), history.parameters["bias"]], 1)
    distance = torch.cat([torch.ones(1), (path - found.optimum) @ found.slowest_direction])
    before, now = distance[:-1], distance[1:]
    move = lr * found.smallest_curvature
    # Nesterov's step is lr gradient + beta velocity, the heavy ball's the velocity itself.
    velocity = ((1 - move) * before - now) / beta if nesterov else before - now
    left = torch.maximum(now.abs(), velocity.abs()) if beta else now.abs()
    assert left[-1] <= 0.01 * (1 + 1e-6)
    assert left[-2] > 0.01


def test_a_rate_that_never_arrives() -> None:
    model, data = problem()
    found = curvature(model, nn.MSELoss(), data)
    over = optim.SGD(model.parameters(), lr=1.01 * found.largest_stable_lr())
    assert found.epochs_to(0.5, over) is None


def test_the_best_settings_are_better_than_their_neighbours() -> None:
    model, data = problem()
    found = curvature(model, nn.MSELoss(), data)

    def epochs(lr: float, beta: float = 0.0) -> int:
        optimizer = optim.SGD(model.parameters(), lr=lr, momentum=beta)
        return found.epochs_to(1e-9, optimizer) or 2**40

    best = epochs(found.best_lr)
    assert best <= min(epochs(0.98 * found.best_lr), epochs(1.02 * found.best_lr))
    heavy = epochs(found.heavy_ball_lr, found.best_momentum)
    assert heavy < best
    for beta in (0.9 * found.best_momentum, (found.best_momentum + 1) / 2):
        assert heavy < epochs(found.heavy_ball_lr, beta)
    for factor in (0.9, 1.1):
        assert heavy < epochs(factor * found.heavy_ball_lr, found.best_momentum)


def test_standardised_features_have_mean_0_and_deviation_1() -> None:
    model, data = problem()
    standardised = curvature(model, nn.MSELoss(), data).standardised
    features, bias = standardised.features[:, :3], standardised.features[:, 3]
    assert torch.allclose(features.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-14)
    assert torch.allclose(features.std(0, correction=0), torch.ones(3, dtype=torch.float64))
    assert torch.all(bias == 1)


def test_directions_without_curvature_are_left_out() -> None:
    x = torch.ones(4, 1)
    found: Curvature = curvature(nn.Linear(1, 1), nn.MSELoss(), (x, 3 * x))
    assert found.rank == 1
    assert found.optimal_loss == pytest.approx(0.0, abs=1e-28)
    assert curvature(nn.Linear(1, 1, bias=False), nn.MSELoss(), (0 * x, x)).rank == 0


def said(report: Report) -> str:
    run = report.outcomes[report.shown].run
    return " ".join(language("en").say(s) for s in report.lesson.says(run, report.settings))


def test_the_two_rates_of_one_descent(reports: dict[str, Report]) -> None:
    assert "lr 0.1 here and 0.15 there move W alike" in said(reports["deeper_gd_manual"])
    assert "lr 0.15 here and 0.1 there move W alike" in said(reports["deeper_gd_sgd"])
    assert f"= {3 / 14:.6f};" in said(reports["learning_rate"])


def test_b_is_where_the_slow_direction_leaves_it(reports: dict[str, Report]) -> None:
    text = said(reports["linear_regression"])
    assert "must still be 0.005984 by the curvature, and is 0.005984 by the run" in text


def test_no_cubic_gets_below_8_817(reports: dict[str, Report]) -> None:
    for name in ("sine_numpy", "sine_torch", "sine_nn", "sine_rmsprop", "legendre"):
        assert "8.817" in said(reports[name]), name
        for outcome in reports[name].outcomes.values():
            assert all(row.cost > 8.817 for row in outcome.run.rows)
    x = torch.linspace(-math.pi, math.pi, 2000, dtype=torch.float64)
    features = x[:, None] ** torch.arange(4)
    best = torch.linalg.lstsq(features, torch.sin(x)[:, None]).solution
    floor = torch.sum((features @ best - torch.sin(x)[:, None]) ** 2).item()
    assert f"{floor:.4g}" == "8.817"


@pytest.mark.parametrize("data", ["x,y\n1,2\n1,3\n", "x,y\n0,1\n0,2\n", "x,y\n1e38,1\n2e38,2\n"])
def test_data_of_any_kind_is_spoken_of_or_passed_over(
    lessons: Command, tmp_path: Path, data: str
) -> None:
    path = tmp_path / "data.csv"
    path.write_text(data)
    said = lessons("deeper_gd_sgd", "linear_regression", "sine_nn", "--data", path, "--epochs", 3)
    assert said.status in (0, 1)
    assert "nan" not in said.out.lower().replace("finance", "")
