"""The closed form against the loop over the rows: no code in common, each the other's oracle."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdcore

from ..devices import NOT_EMULATED
from .least_squares import stepwise
from .training_cases import CASES, OPTIONS, twin

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

AFFINE = [name for name in CASES if "Legendre" not in name]
SETTINGS = {name: options for name, options in OPTIONS.items() if not options.get("maximize")} | {
    "decayed momentum": {"momentum": 0.8, "weight_decay": 0.2},
    "everything": {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
    "damped and decayed": {"momentum": 0.5, "dampening": 0.3, "weight_decay": 0.1},
}
LOSSES: dict[str, Any] = {"mean": nn.MSELoss(), "sum": nn.MSELoss(reduction="sum")}

TOLERANCE = 1e-9
"""Of the initial loss. Each epoch rounds the residual by some ε, which lives on as long as the
momentum's transient, some hundred epochs here: 1e-13 and less, times the loss's own rise above
where it began, which is 155 at the best momentum for a condition of 1e4."""


def agrees(predicted: Tensor, history: gdcore.History) -> bool:
    assert predicted.dtype == torch.float64
    assert predicted.shape == history.loss.shape
    return bool((predicted - history.loss).abs().max() <= TOLERANCE * history.loss[0])


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", AFFINE)
def test_the_losses_of_every_epoch(name: str, settings: str) -> None:
    model, x, y = CASES[name](20, torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    lr = 0.4 * found.largest_stable_lr()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, **SETTINGS[settings])
    predicted = found.predict(optimizer, 300)
    begun = twin(model)
    for _ in range(2):  # the second time on with the momentum buffers of the first
        assert agrees(predicted, stepwise(model, nn.MSELoss(), optimizer, (x, y), epochs=300))
        predicted = found.predict(optimizer, 300)
    ended = dict(model.named_parameters())
    assert any(not torch.equal(p, ended[n]) for n, p in begun.named_parameters())


@pytest.mark.parametrize("reduction", LOSSES)
@pytest.mark.parametrize("rows", [1, 2, 3, 1000])
def test_any_number_of_rows(rows: int, reduction: str) -> None:
    model, x, y = CASES["Linear"](rows, torch.float64)
    loss_fn = LOSSES[reduction]
    found = gdcore.curvature(model, loss_fn, (x, y))
    lr = 0.9 * found.largest_stable_lr()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.5)
    predicted = found.predict(optimizer, 100)
    assert agrees(predicted, stepwise(model, loss_fn, optimizer, (x, y), epochs=100))


def test_where_the_two_roots_coincide() -> None:
    """The best momentum puts the extreme directions exactly there, for thousands of epochs."""
    model, x, y = CASES["Linear"](20, torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x * torch.tensor([1.0, 0.1, 0.01]), y))
    data = (x * torch.tensor([1.0, 0.1, 0.01]), y)
    for nudge in (0.0, 1e-15, 1e-12, 1e-8, -1e-8):
        start = twin(model)
        optimizer = torch.optim.SGD(
            start.parameters(),
            lr=found.best_momentum_lr,
            momentum=found.best_momentum * (1 + nudge),
        )
        at_start = gdcore.curvature(start, nn.MSELoss(), data)
        predicted = at_start.predict(optimizer, 3000)
        assert agrees(predicted, stepwise(start, nn.MSELoss(), optimizer, data, epochs=3000))


@pytest.mark.parametrize("settings", ["plain", "momentum", "nesterov", "weight decay"])
def test_a_badly_scaled_problem(settings: str) -> None:
    """Columns twelve digits apart; and a column twice."""
    x = torch.randn(40, 4, dtype=torch.float64) * torch.logspace(-6, 6, 4, dtype=torch.float64)
    x = torch.cat([x, x[:, :1]], 1)
    model = nn.Linear(5, 1, dtype=torch.float64)
    y = torch.randn(40, 1, dtype=torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    options = SETTINGS[settings]
    limit = found.largest_stable_lr(options.get("momentum", 0.0), options.get("nesterov", False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5 * limit, **options)
    predicted = found.predict(optimizer, 500)
    assert agrees(predicted, stepwise(model, nn.MSELoss(), optimizer, (x, y), epochs=500))


@pytest.mark.filterwarnings("ignore:optimizer. lr=.* is above:RuntimeWarning")
def test_a_descent_that_diverges() -> None:
    """While the numbers last, the relative error grows by some ε each epoch; then it is infinite.
    Directions at rest stay there."""
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    x = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0]]))
    y = torch.zeros(2, 1, dtype=torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    predicted = found.predict(optimizer, 400)
    with pytest.raises(gdcore.DivergenceError) as caught:
        stepwise(model, nn.MSELoss(), optimizer, (x, y), epochs=400)
    loop = caught.value.history.loss[:-1]
    assert torch.allclose(predicted[: len(loop)], loop, rtol=1e-12)
    assert predicted[-1] == math.inf
    assert not predicted.isnan().any()


def test_from_where_the_parameters_are_when_asked() -> None:
    model, x, y = CASES["Linear"](20, torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    with torch.no_grad():
        model.weight += 1.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    predicted = found.predict(optimizer, 20)
    assert agrees(predicted, stepwise(model, nn.MSELoss(), optimizer, (x, y), epochs=20))


def test_the_model_and_the_optimizer_stay_as_they_are() -> None:
    model, x, y = CASES["Linear"](20, torch.float64)
    before = twin(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    found.predict(optimizer, 20)
    str(found)
    assert not optimizer.state
    for (_, a), (_, b) in zip(model.named_parameters(), before.named_parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.grad is None


def first_below(losses: Tensor, lowest: float, tolerance: float) -> float:
    above = losses - lowest
    below = torch.nonzero(above <= tolerance * above[0])
    return int(below[0]) if len(below) else math.inf


@pytest.mark.parametrize("tolerance", [1.0, 0.5, 1e-2, 1e-6])
@pytest.mark.parametrize("settings", ["plain", "momentum", "nesterov"])
def test_epochs_to_a_tolerance(settings: str, tolerance: float) -> None:
    model, x, y = CASES["Linear"](20, torch.float64)
    data = (x * torch.tensor([1.0, 0.3, 0.03]), y)
    found = gdcore.curvature(model, nn.MSELoss(), data)
    nesterov = settings == "nesterov"
    limit = found.largest_stable_lr(0.9 if nesterov else 0.0, nesterov)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.7 * limit, **SETTINGS[settings])
    expected = found.epochs_to(tolerance, optimizer)
    losses = stepwise(model, nn.MSELoss(), optimizer, data, epochs=20_000).loss
    assert expected == first_below(losses, found.optimal_loss, tolerance)


def test_epochs_beyond_all_loops() -> None:
    """Two directions: the flat one of curvature 1e-10 of the other falls by 1 - 1e-10 an epoch."""
    x = torch.diag(torch.tensor([1.0, 1e-5], dtype=torch.float64))
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(model.weight)
    y = torch.zeros(2, 1, dtype=torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    optimizer = torch.optim.SGD(model.parameters(), lr=1 / found.largest_curvature)
    # The steep direction is gone after one epoch, and held all but 1e-10 of the loss.
    tolerance = 1e-16
    left = 1e-10 / (1 + 1e-10)
    expected = math.ceil(math.log(tolerance / left) / (2 * math.log1p(-1e-10)))
    assert abs(found.epochs_to(tolerance, optimizer) / expected - 1) < 1e-7
    assert found.epochs_to(0.5, optimizer) == 1


@pytest.mark.parametrize("tolerance", [0.5, 1e-3])
def test_epochs_counted_exactly_where_strides_are_long(tolerance: float) -> None:
    """One direction, whose loss falls by (1 - z)² an epoch: some hundred thousand of them."""
    x = torch.ones(1, 1, dtype=torch.float64)
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(model.weight)
    found = gdcore.curvature(model, nn.MSELoss(), (x, 0 * x))
    z = 2.0**-17
    optimizer = torch.optim.SGD(model.parameters(), lr=z / 2)
    expected = math.ceil(math.log(tolerance) / (2 * math.log1p(-z)))
    assert found.epochs_to(tolerance, optimizer) == expected


def test_epochs_that_never_come() -> None:
    model, x, y = CASES["Linear"](20, torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    fast = torch.optim.SGD(model.parameters(), lr=1.01 * found.largest_stable_lr())
    assert found.epochs_to(1e-3, fast) == math.inf
    pulled = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=10.0)
    assert found.epochs_to(1e-3, pulled) == math.inf
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    assert found.epochs_to(1e-3, still) == math.inf


def test_what_has_no_closed_form() -> None:
    model, x, y = CASES["Linear"](20, torch.float64)
    found = gdcore.curvature(model, nn.MSELoss(), (x, y))
    with pytest.raises(TypeError, match=r"optimizer: expected torch\.optim\.SGD .* got Adam"):
        found.predict(torch.optim.Adam(model.parameters()), 3)
    groups = [{"params": [p], "lr": 0.1 * (i + 1)} for i, p in enumerate(model.parameters())]
    for optimizer, message in (
        (torch.optim.SGD(groups), "the same settings"),
        (torch.optim.SGD(list(model.parameters())[:1], lr=0.1), "to hold all parameters"),
        (torch.optim.SGD(model.parameters(), lr=0.1, maximize=True), "maximize=False"),
    ):
        with pytest.raises(ValueError, match=f"optimizer: expected {message}"):
            found.predict(optimizer, 3)
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="epochs: expected at least 0"):
        found.predict(plain, -1)
    with pytest.raises(TypeError, match="epochs: expected an int"):
        found.predict(plain, 1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tolerance: expected a number above 0"):
        found.epochs_to(0.0, plain)
    assert found.predict(plain, 0).shape == (0,)
