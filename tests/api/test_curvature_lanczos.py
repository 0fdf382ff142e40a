"""Curvatures of more features than a factorisation takes: what Lanczos finds, and what not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gdcore
from gdcore._insight import quadratic as _quadratic

from .least_squares import curvatures_of, flat


def close(found: float, expected: float, digits: float = 1e-12) -> bool:
    return abs(found - expected) <= digits * abs(expected)


def krylov(case: Callable[[], gdcore.Curvature], monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patched:
        patched.setattr(_quadratic, "MOST_EXACT", 2)
        return case()


@pytest.mark.parametrize("outputs", [1, 2])
def test_what_lanczos_finds_is_what_the_factorisation_finds(
    outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as many steps as directions nothing is left to settle."""
    x = torch.randn(60, 12, dtype=torch.float64)
    y = torch.randn(60, outputs, dtype=torch.float64)
    model = nn.Linear(12, outputs, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)

    def case() -> gdcore.Curvature:
        return gdcore.curvature(model, nn.MSELoss(), (x, y))

    exact, found = case(), krylov(case, monkeypatch)
    assert not found.exact
    assert "estimated" in str(found)
    assert close(found.largest_curvature, exact.largest_curvature, 1e-10)
    assert close(found.optimal_loss, exact.optimal_loss, 1e-10)
    assert np.allclose(flat(found.optimum), flat(exact.optimum), rtol=0, atol=1e-9)
    path = exact.predict(optimizer, 200)
    assert torch.allclose(found.predict(optimizer, 200), path, rtol=0, atol=1e-10 * path[0].item())
    if outputs == 1:
        assert close(found.smallest_curvature, exact.smallest_curvature, 1e-9)


def test_a_wide_problem_by_lanczos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps than directions: the largest has settled all the same."""
    x = torch.randn(700, 600, dtype=torch.float64) * torch.linspace(1, 3, 600)
    model = nn.Linear(600, 1, bias=False, dtype=torch.float64)
    data = (x, torch.randn(700, 1, dtype=torch.float64))
    found = krylov(lambda: gdcore.curvature(model, nn.MSELoss(), data), monkeypatch)
    expected = curvatures_of(x.numpy(), 1 / 700)
    assert close(found.largest_curvature, expected[0], 1e-9)
    assert expected[-1] * (1 - 1e-6) <= found.smallest_curvature <= expected[0]
    exact = gdcore.curvature(model, nn.MSELoss(), data)
    rate = exact.best_momentum_lr
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=exact.best_momentum)
    path = exact.predict(optimizer, 301)
    bound = 1e-10 * path[0].item()
    assert torch.allclose(found.predict(optimizer, 301), path, rtol=0, atol=bound)
    places = torch.randn(4, 1, 600, dtype=torch.float64)
    elsewhere = exact.loss({"weight": places})
    assert torch.allclose(found.loss({"weight": places}), elsewhere, rtol=1e-12, atol=0)
    for ask in (
        lambda: found.optimum,
        lambda: found.optimal_loss,
        lambda: found.slowest_direction,
        lambda: found.along_directions({"weight": places}),
        lambda: found.predict(optimizer, 302),
        lambda: found.epochs_to(0.1, optimizer),
    ):
        with pytest.raises(ValueError, match=r"expected at most .* features"):
            ask()
    page = " ".join(str(found).split())
    assert "do better" not in page
    assert "best rate" not in page
    assert "neither the optimum" in page
    assert "flattest direction" not in {str(each.get_label()) for each in found.plot().lines}


def test_lanczos_finds_the_curvatures_at_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """No residual is left there to show them."""
    x = torch.randn(60, 12, dtype=torch.float64)
    model = nn.Linear(12, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    data = (x, torch.zeros(60, 1, dtype=torch.float64))
    found = krylov(lambda: gdcore.curvature(model, nn.MSELoss(), data), monkeypatch)
    assert close(found.largest_curvature, curvatures_of(x.numpy(), 1 / 60)[0], 1e-10)
    assert found.optimal_loss == 0.0
    assert not found.optimum["weight"].any()
