"""Curvatures of more features than a factorisation takes: what Lanczos finds, and what not."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gdcore
from gdcore._insight import lanczos as _lanczos
from gdcore._insight import quadratic as _quadratic

from ..devices import NOT_EMULATED
from .least_squares import curvatures_of, flat

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]


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


def wide(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, gdcore.Curvature]:
    """Fewer steps than directions: the largest has settled all the same."""
    x = torch.randn(700, 600, dtype=torch.float64) * torch.linspace(1, 3, 600)
    model = nn.Linear(600, 1, bias=False, dtype=torch.float64)
    data = (x, torch.randn(700, 1, dtype=torch.float64))
    with pytest.warns(RuntimeWarning, match="smallest_curvature may be smaller") as said:
        found = krylov(lambda: gdcore.curvature(model, nn.MSELoss(), data), monkeypatch)
    assert len(said) == 1
    assert said[0].filename == __file__
    for name in ("condition_number", "rank", "rate", "best_lr", "best_momentum"):
        assert name in str(said[0].message)
    assert "largest_curvature" not in str(said[0].message)
    return model, data, found


def test_a_wide_problem_by_lanczos(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, found = wide(monkeypatch)
    expected = curvatures_of(data[0].cpu().numpy(), 1 / 700)
    assert close(found.largest_curvature, expected[0], 1e-9)
    exact = gdcore.curvature(model, nn.MSELoss(), data)
    # As the warning says.
    assert found.smallest_curvature > exact.smallest_curvature
    for name in ("condition_number", "rank", "rate", "best_lr", "best_momentum"):
        assert getattr(found, name) < getattr(exact, name), name
    rate = exact.best_momentum_lr
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=exact.best_momentum)
    path = exact.predict(optimizer, 301)
    bound = 1e-10 * path[0].item()
    assert torch.allclose(found.predict(optimizer, 301), path, rtol=0, atol=bound)
    places = torch.randn(4, 1, 600, dtype=torch.float64)
    elsewhere = exact.loss({"weight": places})
    assert torch.allclose(found.loss({"weight": places}), elsewhere, rtol=1e-12, atol=0)
    # The gradient is left at 1e-10 ‖Φ‖ ‖e‖: 1e-10 of its κ in the loss's root, and κ² < 1e5.
    assert close(found.optimal_loss, exact.optimal_loss, 1e-12)
    assert np.allclose(flat(found.optimum), flat(exact.optimum), rtol=0, atol=1e-6)
    for ask in (
        lambda: found.slowest_direction,
        lambda: found.along_directions({"weight": places}),
        lambda: found.predict(optimizer, 302),
        lambda: found.epochs_to(0.1, optimizer),
    ):
        with pytest.raises(ValueError, match=r"expected at most .* features"):
            ask()


def test_estimates_are_marked_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, found = wide(monkeypatch)
    assert "loss at the optimum" not in str(found)
    assert found.optimum
    page = str(found)
    lines = {line[:25].strip(): line for line in page.splitlines()}
    assert lines["smallest curvature"].endswith("or less")
    assert lines["condition number"].endswith("or more")
    assert lines["rank"].endswith("of 600 parameters, or more")
    assert not lines["largest curvature"].endswith("or more")
    assert "loss at the optimum" in lines
    for unknown in ("best rate", "best momentum", "slowest direction"):
        assert unknown not in lines
    assert "flattest direction" not in {str(each.get_label()) for each in found.plot().lines}


def test_an_optimum_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, _ = wide(monkeypatch)
    monkeypatch.setattr(_lanczos, "MOST_ITERATIONS", 20)
    with pytest.warns(RuntimeWarning):
        found = krylov(lambda: gdcore.curvature(model, nn.MSELoss(), data), monkeypatch)
    for name in ("optimum", "optimal_loss"):
        with pytest.raises(ValueError, match=r"model: expected at most .* conjugate gradients"):
            getattr(found, name)
    page = " ".join(str(found).split())
    assert "do better" not in page
    assert "Not looked for yet" in page


def test_the_optimum_by_conjugate_gradients_is_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(40, 90, dtype=torch.float64), torch.randn(40, 2, dtype=torch.float64)
    weight = torch.rand(40, dtype=torch.float64)
    model = nn.Linear(90, 2, dtype=torch.float64)
    data = (x, y, weight)
    exact = gdcore.curvature(model, nn.MSELoss(), data)
    found = krylov(lambda: gdcore.curvature(model, nn.MSELoss(), data), monkeypatch)
    assert found.optimal_loss == exact.optimal_loss == 0.0
    assert np.allclose(flat(found.optimum), flat(exact.optimum), rtol=0, atol=1e-9)


def test_a_direction_that_the_residual_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steepest, which limits the rate. The global generator is left alone."""
    size = torch.linspace(1, 2, 400, dtype=torch.float64)
    size[0] = 100
    y = torch.ones(400, 1, dtype=torch.float64)
    y[0] = 0
    model = nn.Linear(400, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    data = (torch.diag(size), y)
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = krylov(lambda: gdcore.curvature(model, nn.MSELoss(), data), monkeypatch)
    assert torch.equal(torch.get_rng_state(), state)
    assert close(found.largest_curvature, 2 * 100**2 / 400)
    assert close(found.largest_stable_lr(), 400 / 100**2)


def test_a_flat_direction_that_the_residual_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few sizes everything settles, and nothing is warned of."""
    size = torch.tensor([3.0, 2.0, 2.0, 1.0, 1e-3], dtype=torch.float64).repeat(20)
    y = (size > 2.5).double()[:, None]
    model = nn.Linear(100, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    data = (torch.diag(size), y)
    found = krylov(lambda: gdcore.curvature(model, nn.MSELoss(), data), monkeypatch)
    assert close(found.condition_number, 9e6, 1e-9)
    assert 4 <= found.rank <= 100
    assert "or less" not in str(found)
    slowest = found.slowest_direction["weight"][0]
    assert close(float(slowest[size.cpu() == 1e-3].square().sum()), 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=100 / 18)
    # Only the steepest is away from its optimum, and arrives in one step.
    assert found.epochs_to(1e-6, optimizer) == 1


def test_a_spectrum_whose_largest_does_not_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lanczos, "_STEPS", 3)
    data = (torch.randn(70, 50, dtype=torch.float64), torch.randn(70, 1, dtype=torch.float64))
    model = nn.Linear(50, 1, bias=False, dtype=torch.float64)
    with pytest.warns(RuntimeWarning, match=r"largest_curvature may be larger.*largest_stable_lr"):
        found = krylov(lambda: gdcore.curvature(model, nn.MSELoss(), data), monkeypatch)
    lines = {line[:25].strip(): line for line in str(found).splitlines()}
    assert lines["largest curvature"].endswith("or more")
    assert lines["largest stable rate"].endswith("or less")


def test_lanczos_finds_the_curvatures_at_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """No residual is left there to show them."""
    x = torch.randn(60, 12, dtype=torch.float64)
    model = nn.Linear(12, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    data = (x, torch.zeros(60, 1, dtype=torch.float64))
    found = krylov(lambda: gdcore.curvature(model, nn.MSELoss(), data), monkeypatch)
    assert close(found.largest_curvature, curvatures_of(x.cpu().numpy(), 1 / 60)[0], 1e-10)
    assert found.optimal_loss == 0.0
    assert not found.optimum["weight"].any()
