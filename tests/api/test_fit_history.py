"""fit: its history, its equality with train_step to the bit, and how it ends when it diverges."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import gdcore

from .rounding import assert_within_rounding
from .training_cases import CASES, line, make, twin

Run = tuple[nn.Module, torch.optim.Optimizer]
ALL_OPTIONS: dict[str, Any] = {"lr": 0.02, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}

pytestmark = pytest.mark.usefixtures("device")

TOO_HIGH = pytest.mark.filterwarnings("ignore:optimizer. lr=.* is above:RuntimeWarning")


def begin(model: nn.Module, **options: Any) -> Run:
    other = twin(model)
    return other, torch.optim.SGD(other.parameters(), **{**ALL_OPTIONS, **options})


def assert_same_state(run: Run, other: Run) -> None:
    for ours, theirs in zip(run[0].parameters(), other[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)
        states = run[1].state[ours], other[1].state[theirs]
        assert torch.equal(*(state["momentum_buffer"] for state in states))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_fit_is_train_step_many_times_to_the_bit(case: str, dtype: torch.dtype) -> None:
    model, x, y = make(case, 77, dtype)
    fitted, stepped, pieced = (begin(model) for _ in range(3))
    history = gdcore.fit(fitted[0], nn.MSELoss(), fitted[1], (x, y), epochs=9, record_every=1)
    step = gdcore.train_step(stepped[0], nn.MSELoss(), stepped[1])
    losses = []
    for epoch in range(9):
        losses.append(step(x, y))
        for name, parameter in stepped[0].named_parameters():
            assert torch.equal(history.parameters[name][epoch], parameter.cpu())
    pieces = [
        gdcore.fit(pieced[0], nn.MSELoss(), pieced[1], (x, y), epochs=n).loss for n in (1, 0, 5, 3)
    ]
    assert torch.equal(history.loss, torch.stack(losses).cpu())
    assert torch.equal(history.loss, torch.cat(pieces))
    assert_same_state(fitted, stepped)
    assert_same_state(fitted, pieced)
    assert len(history.loss.unique()) == 9


@pytest.mark.parametrize("columns", [3, 40])
def test_also_where_rows_are_many_chunks(columns: int) -> None:
    """At most 4096 rows make a chunk, so these are at least four."""
    x, y = torch.randn(12_345, columns), torch.randn(12_345, 1)
    fitted, stepped = (begin(nn.Linear(columns, 1)) for _ in range(2))
    stepped[0].load_state_dict(fitted[0].state_dict())
    history = gdcore.fit(fitted[0], nn.MSELoss(), fitted[1], (x, y), epochs=3)
    step = gdcore.train_step(stepped[0], nn.MSELoss(), stepped[1])
    assert torch.equal(history.loss, torch.stack([step(x, y) for _ in range(3)]).cpu())
    assert_same_state(fitted, stepped)


@pytest.mark.parametrize("epochs", [0, 1, 2, 7, 8, 9])
@pytest.mark.parametrize("record_every", [None, 1, 2, 4, 100])
def test_history(record_every: int | None, epochs: int) -> None:
    model, x, y = make("Flatten(0, 1)")
    run, reference = begin(model), begin(model)
    history = gdcore.fit(
        run[0], nn.MSELoss(), run[1], (x, y), epochs=epochs, record_every=record_every
    )
    step = gdcore.train_step(reference[0], nn.MSELoss(), reference[1])
    losses, records = [], []
    for _ in range(epochs):
        losses.append(step(x, y))
        records.append({n: p.detach().cpu().clone() for n, p in reference[0].named_parameters()})

    assert history.loss.shape == (epochs,)
    assert history.loss.dtype == torch.float64
    assert not history.loss.requires_grad
    assert history.loss.tolist() == [loss.item() for loss in losses]
    assert history.record_every == record_every
    assert isinstance(history.seconds, float)
    assert 0 <= history.seconds < 60
    if record_every is None:
        assert history.parameters == {}
        assert history.recorded_epochs == range(0)
        return
    assert history.recorded_epochs == range(0, epochs, record_every)
    assert history.parameters.keys() == {"0.weight", "0.bias"}
    for name, values in history.parameters.items():
        parameter = run[0].get_parameter(name)
        assert values.shape == (len(history.recorded_epochs), *parameter.shape)
        assert values.dtype == parameter.dtype
        for row, epoch in enumerate(history.recorded_epochs):
            assert torch.equal(values[row], records[epoch][name])


def test_history_is_the_users_own() -> None:
    """Nothing in it changes with the model, and the model not with it."""
    model, x, y = line()
    run = begin(model)
    history = gdcore.fit(run[0], nn.MSELoss(), run[1], (x, y), epochs=3, record_every=1)
    before = {name: values.clone() for name, values in history.parameters.items()}
    gdcore.fit(run[0], nn.MSELoss(), run[1], (x, y), epochs=3)
    for name, values in history.parameters.items():
        assert torch.equal(values, before[name])
        parameter = run[0].get_parameter(name).detach().clone()
        values.zero_()
        assert torch.equal(run[0].get_parameter(name), parameter)


def test_frozen_parameters_are_recorded_as_they_are() -> None:
    model, x, y = line()
    bias = model.get_parameter("bias").requires_grad_(False)
    run = begin(model)
    history = gdcore.fit(run[0], nn.MSELoss(), run[1], (x, y), epochs=4, record_every=2)
    assert torch.equal(history.parameters["bias"], bias.expand(2, 1).cpu())


def test_history_shows_copies_and_compares() -> None:
    model, x, y = line()
    run = begin(model)
    history = gdcore.fit(run[0], nn.MSELoss(), run[1], (x, y), epochs=3, record_every=1)
    assert repr(history).startswith("History(3 epochs, loss ")
    for other in (copy.deepcopy(history), pickle.loads(pickle.dumps(history))):
        assert torch.equal(other.loss, history.loss)
        assert (other == history) in (True, False)
    assert repr(gdcore.fit(run[0], nn.MSELoss(), run[1], (x, y), epochs=0)).startswith(
        "History(0 epochs, "
    )


def test_no_epochs_change_nothing() -> None:
    model, x, y = line()
    optimizer = torch.optim.SGD(model.parameters(), **ALL_OPTIONS)
    before = [(p.detach().clone(), p._version) for p in model.parameters()]
    gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=0, record_every=3)
    assert [(p, p._version) for p in model.parameters()] == before
    assert not optimizer.state


def diverge(dtype: torch.dtype, lr: float, **options: Any) -> gdcore.DivergenceError:
    model, x, y = line(dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    # Compressed, it would hold a loss in float64 that is past float32.
    options = {"epochs": 10_000, "method": "stepwise", **options}
    with pytest.raises(gdcore.DivergenceError) as info:
        gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), **options)
    assert all(p.isfinite().all() for p in model.parameters())
    return info.value


@TOO_HIGH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("record_every", [None, 3])
def test_divergence(record_every: int | None, dtype: torch.dtype) -> None:
    error = diverge(dtype, 5.0, record_every=record_every)
    assert isinstance(error, ArithmeticError)
    history = error.history
    assert len(history.loss) == error.epoch + 1
    assert not history.loss[-1].isfinite()
    assert history.loss[:-1].isfinite().all()
    assert history.recorded_epochs == range(0, error.epoch if record_every else 0, 3)
    assert error.lr == 5.0
    assert error.largest_stable_lr == pytest.approx(1.0)
    for part in (f"{history.loss[-1].item()}", f"epoch {error.epoch}", "lr=5"):
        assert part in str(error)


@TOO_HIGH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_divergence_is_where_plain_torch_has_it(dtype: torch.dtype) -> None:
    """The same epoch, and the weight of that epoch, which grows about 900-fold at a step.

    One weight alone: nothing cancels, so each step adds fewer than 64 roundings to its error.
    """
    _, x, y = line(dtype=dtype)
    model = nn.Linear(1, 1, bias=False, dtype=dtype)
    reference = twin(model)
    plain = torch.optim.SGD(reference.parameters(), lr=1000.0)
    epoch = 0
    while (loss := nn.functional.mse_loss(reference(x), y)).isfinite():
        plain.zero_grad()
        loss.backward()
        plain.step()
        epoch += 1
    assert epoch > 5
    optimizer = torch.optim.SGD(model.parameters(), lr=1000.0)
    with pytest.raises(gdcore.DivergenceError) as info:
        gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=1000)
    assert info.value.epoch == epoch
    ours, theirs = model.weight, reference.get_parameter("weight")
    assert_within_rounding(ours, theirs, theirs.abs(), 64 * epoch)


@TOO_HIGH
@pytest.mark.parametrize("rate", [0.1, -1.5])
def test_divergence_tells_the_rate_of_the_group(rate: float) -> None:
    model, x, y = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer.param_groups[0]["lr"] = rate
    with pytest.raises(gdcore.DivergenceError) as info:
        gdcore.fit(model, nn.MSELoss(), optimizer, (x * 1e12, y), epochs=1000)
    assert info.value.lr == rate


@TOO_HIGH
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["x", "y"])
def test_data_that_are_not_finite(where: str, value: float, request: pytest.FixtureRequest) -> None:
    """Found at the first epoch: nothing was written."""
    on_device = request.node.callspec.params["device"] != "cpu"
    model, x, y = line()
    (x if where == "x" else y)[2] = value
    optimizer = torch.optim.SGD(model.parameters(), **ALL_OPTIONS)
    before = [(p.detach().clone(), p._version) for p in model.parameters()]
    with pytest.raises(gdcore.DivergenceError) as info:
        gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=5, record_every=1)
    assert info.value.epoch == 0
    assert len(info.value.history.loss) == 1
    assert info.value.history.recorded_epochs == range(0)
    for parameter, (value_before, version) in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value_before)
        # A device is put its steps before it is known that they end.
        assert parameter._version == version or on_device
    assert not optimizer.state


@TOO_HIGH
def test_the_error_travels_between_processes() -> None:
    error = diverge(torch.float32, 5.0)
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is gdcore.DivergenceError
    assert (other.epoch, other.lr, str(other)) == (error.epoch, error.lr, str(error))
    assert torch.equal(other.history.loss, error.history.loss)


def test_train_step_goes_on_where_fit_would_stop() -> None:
    """As a plain loop does: the loss is returned, whatever it is."""
    model, x, y = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e30)
    step = gdcore.train_step(model, nn.MSELoss(), optimizer)
    losses = torch.stack([step(x, y) for _ in range(4)])
    assert losses[0].isfinite()
    assert not losses[1:].isfinite().any()
    assert not model.get_parameter("weight").isfinite().any()


def test_a_history_without_epochs_is_added() -> None:
    model, x, y = line()
    groups = [{"params": [model.get_parameter(name)]} for name in ("weight", "bias")]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    none, some = (gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=n) for n in (0, 2))
    for both in (none + some, some + none):
        assert torch.equal(both.loss, some.loss)
        assert torch.equal(both.lr, some.lr)
