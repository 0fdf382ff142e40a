"""Every run of a sweep against a loop of its own in plain PyTorch, and against `fit`."""

import copy
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

import gdcore

from ..devices import NOT_EMULATED
from .drawing import drawn_on_cpu
from .least_squares import stepwise
from .training_cases import CASES

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]  # it is torch's operations

Maker = Callable[[Iterable[Tensor]], torch.optim.Optimizer]

EPOCHS, ROWS = 20, 30
TOLERANCE = 1e-12
"""Of the largest value: twenty steps, each a sum of thirty products, round to some thousand ε."""


def two_groups(parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    first, *others = parameters
    groups = [{"params": [first], "weight_decay": 0.2}, {"params": others, "momentum": 0.4}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.3)


RATES = {"lr": [0.001, 0.03]}
PATTERNS: dict[str, tuple[Maker, dict[str, list[float]]]] = {
    "SGD": (
        lambda p: torch.optim.SGD(p, lr=0.1, dampening=0.2, momentum=0.1),
        {"lr": [0.01, 0.1], "momentum": [0.0, 0.5, 0.9]},
    ),
    "Nesterov": (
        lambda p: gdcore.optim.SGD(p, lr=0.1, momentum=0.5, nesterov=True),
        {"lr": [0.01, 0.1], "momentum": [0.3, 0.9], "weight_decay": [0.0, 0.1]},
    ),
    "ascent": (lambda p: torch.optim.SGD(p, lr=0.1, maximize=True), {"lr": [0.001, 0.01]}),
    "groups": (two_groups, RATES),
    "RMSprop": (lambda p: torch.optim.RMSprop(p, weight_decay=0.1), RATES),
    "centred RMSprop": (
        lambda p: gdcore.optim.RMSprop(p, centered=True),
        RATES | {"momentum": [0.0, 0.5]},
    ),
    "Adam": (lambda p: gdcore.optim.Adam(p, weight_decay=0.1, maximize=True), RATES),
    "AMSGrad": (lambda p: torch.optim.Adam(p, amsgrad=True, betas=(0.8, 0.95)), RATES),
    "AdamW": (lambda p: torch.optim.AdamW(p), RATES | {"weight_decay": [0.0, 0.3]}),
}


def sweep(*args: Any, **options: Any) -> gdcore.Sweep:
    return gdcore.sweep(*args, **options)


def own_loop(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Callable[[], Iterable[Any]]
) -> list[float]:
    losses = []
    for _ in range(EPOCHS):
        total = rows = 0.0
        for x, y in batches():
            optimizer.zero_grad()
            loss = mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x)
            rows += len(x)
        losses.append(total / rows)
    return losses


def check(
    run: gdcore.Run,
    model: nn.Module,
    make: Maker,
    start: dict[str, Tensor],
    batches: Callable[[], Iterable[Any]],
    data: tuple[Tensor, Tensor],
) -> None:
    own = copy.deepcopy(model)
    own.load_state_dict(own.state_dict() | start)
    optimizer = make(own.parameters())
    for group in optimizer.param_groups:
        group.update({k: v for k, v in run.settings.items() if k != "initial"})
    with drawn_on_cpu():
        losses = torch.tensor(own_loop(own, optimizer, batches), dtype=torch.float64)
    assert torch.allclose(run.loss, losses, rtol=0, atol=TOLERANCE * losses.max().item())
    with torch.no_grad():
        final = mse_loss(own(data[0]), data[1]).item()
    assert abs(run.final_loss - final) <= TOLERANCE * max(losses.max().item(), final)
    for name, parameter in own.named_parameters():
        bound = TOLERANCE * max(parameter.abs().max().item(), 1.0)
        assert torch.allclose(run.parameters[name], parameter.detach().cpu(), rtol=0, atol=bound)


@pytest.mark.parametrize("way", ["compressed", "stepwise", "batches", "shuffled batches"])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_run_is_a_training_of_its_own(pattern: str, outputs: int, way: str) -> None:
    make, varied = PATTERNS[pattern]
    model = nn.Linear(3, outputs, dtype=torch.float64)
    x = torch.randn(ROWS, 3, dtype=torch.float64)
    y = torch.randn(ROWS, outputs, dtype=torch.float64)
    starts: list[dict[str, Any]] = [{}, {"weight": torch.ones(outputs, 3), "bias": 0.5}]
    options: dict[str, Any] = {"method": way}
    batch_size = ROWS
    if "batches" in way:
        batch_size = 7
        options = {"batch_size": 7, "shuffle": "shuffled" in way}
        options["generator"] = torch.Generator().manual_seed(3)
    found = sweep(
        model, nn.MSELoss(), make(model.parameters()), (x, y), epochs=EPOCHS, initial=starts,
        **varied, **options,
    )  # fmt: skip
    assert found.method == ("compressed" if way == "compressed" else "stepwise")
    expected = list(itertools.product(*varied.values(), [0, 1]))
    assert [tuple(run.settings.values()) for run in found] == expected
    for run in found:
        loader = DataLoader(
            TensorDataset(x, y),
            batch_size=batch_size,
            shuffle=options.get("shuffle", False),
            generator=torch.Generator().manual_seed(3),
        )
        start = {
            name: torch.as_tensor(value).expand(dict(model.named_parameters())[name].shape)
            for name, value in starts[int(run.settings["initial"])].items()
        }
        check(run, model, make, start, loader.__iter__, (x, y))


@pytest.mark.parametrize("method", ["compressed", "stepwise"])
@pytest.mark.parametrize("name", [name for name in CASES if "Legendre" not in name])
def test_every_model_as_fit_trains_it(name: str, method: str) -> None:
    model, x, y = CASES[name](ROWS, torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options: dict[str, Any] = {"lr": [0.01, 0.05], "momentum": [0.0, 0.8]}
    for loss_fn in (nn.MSELoss(), nn.MSELoss(reduction="sum")):
        scale = 1.0 if loss_fn.reduction == "mean" else 1 / y.numel()
        options["lr"] = [0.01 * scale, 0.05 * scale]
        found = sweep(model, loss_fn, optimizer, (x, y), epochs=EPOCHS, method=method, **options)
        for run in found:
            own = copy.deepcopy(model)
            sgd = torch.optim.SGD(own.parameters(), **run.settings)
            losses = stepwise(own, loss_fn, sgd, (x, y), epochs=EPOCHS).loss
            assert torch.allclose(run.loss, losses, rtol=0, atol=TOLERANCE * losses[0].item())


@pytest.mark.parametrize("method", ["compressed", "stepwise"])
def test_float32_stays_within_its_rounding(method: str) -> None:
    """A step rounds a parameter by 6e-8; in twenty, with losses of order 1, that is some 1e-6."""
    model = nn.Linear(5, 1)
    x, y = torch.randn(300, 5), torch.randn(300, 1)
    optimizer = torch.optim.Adam(model.parameters())
    found = sweep(
        model, nn.MSELoss(), optimizer, (x, y), lr=[0.01, 0.1], epochs=EPOCHS, method=method
    )
    for run in found:
        own = copy.deepcopy(model)
        adam = torch.optim.Adam(own.parameters(), **run.settings)
        own_losses = own_loop(own, adam, lambda: [(x, y)])
        losses = torch.tensor(own_losses, dtype=torch.float64, device="cpu")
        assert torch.allclose(run.loss, losses, rtol=0, atol=3e-6)


@pytest.mark.parametrize("method", ["compressed", "stepwise"])
@pytest.mark.parametrize("shape", ["rows", "elements"])
def test_weights(shape: str, method: str) -> None:
    model = nn.Linear(3, 2, dtype=torch.float64)
    x, y = torch.randn(ROWS, 3, dtype=torch.float64), torch.randn(ROWS, 2, dtype=torch.float64)
    weight = torch.rand(ROWS if shape == "rows" else (ROWS, 2), dtype=torch.float64)
    each = weight if weight.dim() == 2 else weight[:, None].expand(ROWS, 2)
    optimizer = torch.optim.RMSprop(model.parameters())
    (run,) = sweep(model, nn.MSELoss(), optimizer, (x, y, weight), epochs=EPOCHS, method=method)
    own = copy.deepcopy(model)
    rmsprop = torch.optim.RMSprop(own.parameters())
    for expected in run.loss:
        rmsprop.zero_grad()
        loss = gdcore.reference.mse_loss(own(x), y, "mean", each)
        loss.backward()  # type: ignore[no-untyped-call]
        rmsprop.step()
        assert abs(loss.item() - expected.item()) < TOLERANCE


@pytest.mark.parametrize("method", ["compressed", "stepwise"])
@pytest.mark.parametrize("maker", [torch.optim.SGD, torch.optim.RMSprop])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_run_that_diverges_is_marked_and_disturbs_no_other(
    dtype: torch.dtype, maker: Any, method: str
) -> None:
    model = nn.Linear(2, 1, dtype=dtype)
    x, y = torch.randn(ROWS, 2, dtype=dtype), torch.randn(ROWS, 1, dtype=dtype)
    options: dict[str, Any] = {"epochs": 60, "method": method}
    data, loss_fn = (x, y), nn.MSELoss()
    optimizer = maker(model.parameters(), lr=0.1, momentum=0.5)
    wild = 1e25
    if dtype == torch.float64:
        wild = 1e100 if maker is torch.optim.SGD else 1e200
    found = sweep(model, loss_fn, optimizer, data, lr=[0.01, wild, 0.05], **options)
    calm = sweep(model, loss_fn, optimizer, data, lr=[0.01, 0.05], **options)
    own = copy.deepcopy(model)
    losses = []
    single = maker(own.parameters(), lr=wild, momentum=0.5)
    for _ in range(60):
        single.zero_grad()
        loss = loss_fn(own(x), y)
        loss.backward()
        single.step()
        losses.append(loss.item())
    first = next(i for i, loss in enumerate(losses) if not abs(loss) < float("inf"))
    assert found.diverged.tolist() == [-1, first, -1]
    assert calm.diverged.tolist() == [-1, -1]
    assert torch.allclose(found.loss[[0, 2]], calm.loss, rtol=1e-5)
    assert found.best().index != 1
    with pytest.raises(ValueError, match="run: expected one that did not diverge"):
        found.apply(found[1])


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_rate_past_all_numbers_diverges_after_a_finite_loss(momentum: float) -> None:
    """As `fit` with it does: the first loss is that of the start."""
    x = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    model = nn.Linear(1, 1, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e160, momentum=momentum)
    (run,) = sweep(model, nn.MSELoss(), optimizer, (x, x), epochs=3)
    with torch.no_grad():
        begun = mse_loss(model(x), x).item()
    assert abs(run.loss[0].item() / begun - 1) < TOLERANCE
    assert run.loss[1].isinf()
    assert run.diverged == 1


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_batch_whose_weights_are_all_zero(reduction: str) -> None:
    """A mean over it is no number: every run diverges in that epoch, as `fit` does. A sum is 0."""
    x, y = torch.randn(50, 4), torch.randn(50, 1)
    data = (x, y, (torch.arange(50) < 10).float())
    model, loss_fn = nn.Linear(4, 1), nn.MSELoss(reduction=reduction)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    options: dict[str, Any] = {"epochs": 3, "batch_size": 10}
    found = sweep(model, loss_fn, optimizer, data, lr=[0.01, 0.02], **options)
    if reduction == "sum":
        assert found.diverged.tolist() == [-1, -1]
        history = gdcore.fit(model, loss_fn, optimizer, data, **options)
        assert torch.allclose(history.loss.double(), found[0].loss, rtol=1e-5)
        return
    assert found.loss.isnan().all()
    with pytest.raises(gdcore.DivergenceError, match="nan at epoch 0"):
        gdcore.fit(model, loss_fn, optimizer, data, **options)
    assert found.diverged.tolist() == [0, 0]
