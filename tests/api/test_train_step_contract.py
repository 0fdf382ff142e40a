"""What a native step does to the user's objects: gradients, versions, momentum, schedulers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdcore

from ..devices import ON_CPU
from .plain_torch import magnitudes, plain_loop, roundings
from .rounding import assert_within_rounding
from .training_cases import line, make, twin

pytestmark = pytest.mark.usefixtures("device")

MOMENTUM: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}


def test_the_loss_is_fresh_and_taken_before_the_update() -> None:
    model, x, y = line()
    step = gdcore.train_step(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1))
    first, before = step(x, y), nn.functional.mse_loss(model(x), y).item()
    kept = first.item()
    second = step(x, y)
    assert first is not second
    assert first.data_ptr() != second.data_ptr()
    assert first.item() == kept
    # Six positive squares: fewer than 32 roundings.
    assert_within_rounding(second, torch.tensor(before), torch.tensor(2 * before), 32)
    for loss in (first, second):
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert not loss.requires_grad
        assert loss.grad_fn is None


@pytest.mark.parametrize("start", [None, 7.0])
@pytest.mark.parametrize("way", ["train_step", "fit"])
def test_grad_is_left_as_it_was(way: str, start: float | None) -> None:
    model, x, y = line()
    optimizer = torch.optim.SGD(model.parameters(), **MOMENTUM)
    for parameter in model.parameters():
        parameter.grad = None if start is None else torch.full_like(parameter, start)
    before = [parameter.grad for parameter in model.parameters()]
    if way == "fit":
        gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=3)
    else:
        gdcore.train_step(model, nn.MSELoss(), optimizer)(x, y)
    for parameter, grad in zip(model.parameters(), before, strict=True):
        assert parameter.grad is grad
        assert grad is None or torch.equal(grad, torch.full_like(grad, start or 0.0))


@pytest.mark.parametrize("kind", [torch.optim.SGD, gdcore.optim.SGD])
@pytest.mark.parametrize("way", ["train_step", "fit"])
def test_every_write_moves_the_version(way: str, kind: type[torch.optim.SGD]) -> None:
    model, x, y = make("LegendreRegression")
    frozen = model.get_parameter("b").requires_grad_(False)
    frozen_version, data_versions = frozen._version, (x._version, y._version)
    optimizer = kind(model.parameters(), **MOMENTUM)
    step = gdcore.train_step(model, nn.MSELoss(), optimizer)

    def train() -> None:
        if way == "fit":
            gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=2)
        else:
            step(x, y)

    train()
    for _ in range(3):
        parameters = [p for p in model.parameters() if p.requires_grad]
        buffers = [optimizer.state[p]["momentum_buffer"] for p in parameters]
        versions = [t._version for t in (*parameters, *buffers)]
        train()
        moved = [t._version for t in (*parameters, *buffers)]
        assert all(after > before for after, before in zip(moved, versions, strict=True))
        assert all(
            optimizer.state[p]["momentum_buffer"] is b
            for p, b in zip(parameters, buffers, strict=True)
        )
    assert frozen._version == frozen_version
    assert (x._version, y._version) == data_versions


@pytest.mark.parametrize("saved", ["parameter", "momentum buffer"])
@pytest.mark.parametrize("way", ["train_step", "fit"])
def test_a_stale_saved_tensor_is_an_error(way: str, saved: str) -> None:
    model, x, y = line()
    optimizer = torch.optim.SGD(model.parameters(), **MOMENTUM)
    step = gdcore.train_step(model, nn.MSELoss(), optimizer)
    step(x, y)
    weight = model.get_parameter("weight")
    tensor = weight if saved == "parameter" else optimizer.state[weight]["momentum_buffer"]
    stale = (tensor * weight).sum()
    if way == "fit":
        gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=1)
    else:
        step(x, y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()


@pytest.mark.parametrize("order", ["native first", "torch first", "alternating"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, gdcore.optim.SGD])
@pytest.mark.parametrize("case", ["Linear", "PolynomialRegression", "LegendreRegression"])
def test_momentum_is_carried_in_and_out(case: str, kind: type[torch.optim.SGD], order: str) -> None:
    """Native and plain steps take turns over one optimizer: the numbers of a plain loop."""
    model, x, y = make(case)
    reference = twin(model)
    options: dict[str, Any] = {**MOMENTUM, "nesterov": True}
    settings = {name: options for name, _ in model.named_parameters()}
    loss_size, sizes, _ = magnitudes(model, "mean", settings, x, y, 6)
    loss_fn = nn.MSELoss()
    optimizer = kind(model.parameters(), **options)
    step = gdcore.train_step(model, loss_fn, optimizer)
    native = {"native first": "nnnppp", "torch first": "pppnnn", "alternating": "npnpnp"}[order]
    losses = [
        step(x, y) if turn == "n" else plain_loop(model, loss_fn, optimizer, x, y, 1)[0]
        for turn in native
    ]
    plain = torch.optim.SGD(reference.parameters(), foreach=False, **options)
    expected = plain_loop(reference, loss_fn, plain, x, y, 6)
    bound = roundings(model, y.numel(), 6)
    assert_within_rounding(torch.stack(losses), expected, loss_size, bound)
    theirs = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        assert_within_rounding(parameter, theirs[name], sizes[name], bound, name)


def scheduled(optimizer: torch.optim.Optimizer) -> list[torch.optim.lr_scheduler.LRScheduler]:
    module = torch.optim.lr_scheduler
    return [module.StepLR(optimizer, 2, gamma=0.1), module.ExponentialLR(optimizer, 0.9)]


@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize("made", ["before the step", "after the step"])
def test_schedulers_drive_the_rate_and_do_not_warn(made: str, tensor_lr: bool) -> None:
    """Warnings are errors here: a scheduler that saw no step would raise."""
    model, x, y = make("Linear")
    reference = twin(model)
    rate = torch.tensor(0.1, dtype=torch.float64) if tensor_lr else 0.1
    runs = []
    for each in (model, reference):
        lr = rate.clone() if isinstance(rate, Tensor) else rate
        optimizer = torch.optim.SGD(each.parameters(), lr=lr, foreach=False)
        early = scheduled(optimizer) if made == "before the step" else []
        native = gdcore.train_step(each, nn.MSELoss(), optimizer)
        schedulers = early or scheduled(optimizer)
        losses = []
        for _ in range(6):
            if each is model:
                losses.append(native(x, y))
            else:
                losses.append(plain_loop(each, nn.MSELoss(), optimizer, x, y, 1)[0])
            for scheduler in schedulers:
                scheduler.step()
        runs.append(torch.stack(losses))
    settings = {name: {"lr": 0.1} for name, _ in model.named_parameters()}
    size, _, _ = magnitudes(model, "mean", settings, x, y, 6)
    assert_within_rounding(runs[0], runs[1], size, roundings(model, y.numel(), 6))


def test_fit_counts_as_a_step_for_schedulers() -> None:
    model, x, y = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=3)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_under_any_gradient_mode(context: Any) -> None:
    results = []
    for each in (context, torch.enable_grad):
        torch.manual_seed(0)
        model, x, y = line()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step = gdcore.train_step(model, nn.MSELoss(), optimizer)
        with each():
            losses = [step(x, y).item() for _ in range(3)]
        results.append((losses, model.get_parameter("weight").item()))
    assert results[0] == results[1]


@pytest.mark.parametrize("way", ["train_step", "fit"])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_plain_training_goes_on_from_any_gradient_mode(context: Any, way: str) -> None:
    """Momentum buffers that were made in it serve outside it."""
    model, x, y = line()
    optimizer = torch.optim.SGD(model.parameters(), **MOMENTUM)
    with context():
        if way == "fit":
            gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=2)
        else:
            gdcore.train_step(model, nn.MSELoss(), optimizer)(x, y)
    assert plain_loop(model, nn.MSELoss(), optimizer, x, y, 2).isfinite().all()


@ON_CPU
@pytest.mark.parametrize("way", ["train_step", "fit"])
def test_the_default_device_does_not_matter(way: str) -> None:
    model, x, y = line()
    optimizer = torch.optim.SGD(model.parameters(), **MOMENTUM)
    with torch.device("meta"):
        if way == "fit":
            history = gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=2, record_every=1)
            assert history.parameters["weight"].device.type == "cpu"
        else:
            assert gdcore.train_step(model, nn.MSELoss(), optimizer)(x, y).device.type == "cpu"


def test_data_of_another_length_at_each_call() -> None:
    model, x, y = line(rows=30)
    reference = twin(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = gdcore.train_step(model, nn.MSELoss(), optimizer)
    whole = torch.optim.SGD(reference.parameters(), lr=0.1)
    for rows in (1, 30, 0, 16, 17, 2):
        loss = step(x[:rows], y[:rows])
        other = gdcore.train_step(reference, nn.MSELoss(), whole)(x[:rows], y[:rows])
        assert torch.equal(loss.nan_to_num(-1), other.nan_to_num(-1))
        assert loss.isnan() == (rows == 0)
    assert all(map(torch.equal, model.parameters(), reference.parameters()))


@ON_CPU  # elsewhere a parameter with gaps is stepped eagerly
def test_layouts_of_data_and_parameters_do_not_matter() -> None:
    model, x, y = make("Linear", 40)
    losses = []
    for transposed in (False, True):
        other = twin(model)
        inputs, target = x, y
        if transposed:
            inputs, target = x.t().contiguous().t(), y.repeat_interleave(2, 0)[::2]
            weight = other.get_parameter("weight")
            weight.data = weight.detach().t().contiguous().t()
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
        history = gdcore.fit(other, nn.MSELoss(), optimizer, (inputs, target), epochs=4)
        losses.append(history.loss)
    assert torch.equal(*losses)
