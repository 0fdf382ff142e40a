"""What the curvature says is what the descent does."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn, optim

import gdcore
from gdcore.lessons.insight import half_life
from gdcore.lessons.language import language
from gdcore.lessons.lesson import number, numbers
from gdcore.lessons.running import Report

from .conftest import Command


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


def counts(report: Report, name: str) -> list[int]:
    """Epochs at the best rate, with momentum, and standardised, as a lesson says them."""
    run = report.outcomes[report.shown].run
    (saying,) = (s for s in report.lesson.says(run, report.settings) if s.name == name)
    keys = ("by_rate", "by_momentum", "by_standard")
    return [int("".join(filter(str.isdigit, saying.numbers[key]))) for key in keys]


def first_below(
    goal: float, reduction: str, columns: Tensor, y: Tensor, weight: Tensor, bias: Tensor
) -> list[int]:
    """Epochs of real descents to a cost: at the best rate, with momentum, and standardised."""
    mean, deviation = columns.mean(0), columns.std(0, correction=0)
    standard = (columns - mean) / deviation
    loss_fn, found = nn.MSELoss(reduction=reduction), []
    starts = [(columns, weight, bias, False), (columns, weight, bias, True)]
    for x, w, b, momentum in [*starts, (standard, weight * deviation, bias + weight @ mean, False)]:
        model = nn.Linear(columns.shape[1], 1, dtype=torch.float64)
        model.load_state_dict({"weight": w[None], "bias": b.reshape(1)})
        bent = gdcore.curvature(model, loss_fn, (x, y))
        lr, beta = (bent.best_momentum_lr, bent.best_momentum) if momentum else (bent.best_lr, 0.0)
        optimizer = optim.SGD(model.parameters(), lr=lr, momentum=beta)
        stop = gdcore.stop_when(loss_below=goal)
        history = gdcore.fit(
            model, loss_fn, optimizer, (x, y), epochs=5_000, stop=stop, method="stepwise"
        )
        found.append(len(history.loss) - 1 if history.stopped else 0)
    return found


def test_a_line_is_found_as_much_sooner_as_is_said(reports: dict[str, Report]) -> None:
    report = reports["linear_regression"]
    x, y = report.settings.x.double(), report.settings.y.double()
    final = report.outcomes[report.shown].run.final
    goal = torch.mean((number(final["W"]) * x + number(final["b"]) - y) ** 2).item()
    zero = torch.zeros(1, dtype=torch.float64)
    want = first_below(goal * (1 + 1e-9), "mean", x, y, zero, zero)
    assert counts(report, "line_saves") == want
    assert want[0] > want[1] > want[2] > 0


def test_a_cubic_is_found_as_much_sooner_as_is_said(reports: dict[str, Report]) -> None:
    report = reports["sine_torch"]
    x, y = report.settings.x.double(), report.settings.y.double()[:, None]
    end = report.outcomes[report.shown].run.final["coefficients"]
    coefficients = torch.tensor(numbers(end), dtype=torch.float64)
    columns = x[:, None] ** torch.arange(1, 4)
    best = torch.linalg.lstsq(x[:, None] ** torch.arange(4), y).solution
    least = torch.sum((best[0] + columns @ best[1:] - y) ** 2)
    now = torch.sum((coefficients[0] + columns @ coefficients[1:, None] - y) ** 2)
    goal = (least + 0.1 * (now - least)).item()
    want = first_below(goal, "sum", columns, y, coefficients[1:], coefficients[0])
    assert counts(report, "cubic_saves") == want
    assert want[0] > want[1] > want[2] > 0


def test_a_plane_is_found_as_much_sooner_as_is_said(reports: dict[str, Report]) -> None:
    report = reports["multivariate_nn"]
    x, y = report.settings.x.double(), report.settings.y.double()
    final = report.outcomes[report.shown].run.final
    weight = torch.tensor(numbers(final["weight"]), dtype=torch.float64)
    bias = torch.tensor(numbers(final["bias"]), dtype=torch.float64)
    columns = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    residual = columns @ torch.linalg.lstsq(columns, y).solution - y
    goal = 1.01 * residual.square().mean().item()
    at_rate, *want = counts(report, "plane_saves")
    _, *found = first_below(goal, "mean", x, y, weight, bias)
    # Thousands of epochs, of which rounding may cost or save one.
    assert all(abs(one - other) <= 1 for one, other in zip(found, want, strict=True)), found
    assert at_rate > 1_000_000 > want[0] > want[1] > 0


@pytest.mark.parametrize("factor", [0.0, 0.5, -0.5, 0.9, -0.9, 1 - 1e-6, 1.0, 1.1])
def test_half_lives(factor: float) -> None:
    found = half_life(factor)
    if abs(factor) >= 1:
        assert found == math.inf
    else:
        assert abs(factor) ** found <= 0.5
        assert found == 1 or abs(factor) ** (found - 1) > 0.5


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
