"""What happens between epochs: schedules, callbacks, lines. None of it changes the numbers."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import gdcore

from ..devices import NOT_EMULATED
from .training_cases import line

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

EPOCHS = 23
SCHEDULERS: dict[str, Any] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 3, gamma=0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 5]),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=200),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.StepLR(o, 3), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.ExponentialLR(o, 0.9)], [3]
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, threshold=0.2),
}


class Setup:
    """A line in float64, started the same way each time."""

    def __init__(self, eager: bool = False) -> None:
        torch.manual_seed(0)
        self.model, self.x, self.y = line(rows=10, dtype=torch.float64)
        self.y = self.y + 0.3 * self.x.cos()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.5)
        self.method = "eager" if eager else "stepwise"

    def fit(self, epochs: int = EPOCHS, **options: Any) -> gdcore.History:
        return gdcore.fit(
            self.model,
            nn.MSELoss(),
            self.optimizer,
            (self.x, self.y),
            epochs=epochs,
            method=self.method,
            **options,
        )

    def state(self) -> list[Tensor]:
        buffers = [s["momentum_buffer"] for s in self.optimizer.state.values()]
        return [t.detach().clone() for t in (*self.model.parameters(), *buffers)]


WAY = pytest.mark.parametrize("eager", [False, True], ids=["stepwise", "eager"])


@WAY
@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(name: str, batch_size: int | None, eager: bool) -> None:
    """A step after every epoch, as in a loop; the history says what each epoch was run with."""
    fitted, looped = Setup(eager), Setup(eager)
    scheduler = SCHEDULERS[name](fitted.optimizer)
    history = fitted.fit(scheduler=scheduler, batch_size=batch_size)
    scheduler = SCHEDULERS[name](looped.optimizer)
    rates, losses = [], []
    for _ in range(EPOCHS):
        rates.append(looped.optimizer.param_groups[0]["lr"])
        losses.append(looped.fit(1, batch_size=batch_size).loss)
        if name == "ReduceLROnPlateau":
            scheduler.step(losses[-1].item())
        else:
            scheduler.step()
    assert torch.equal(history.loss, torch.cat(losses))
    assert all(map(torch.equal, fitted.state(), looped.state()))
    assert history.lr.tolist() == rates
    assert len(set(rates)) > 1
    assert fitted.optimizer.param_groups[0]["lr"] == looped.optimizer.param_groups[0]["lr"]


@WAY
def test_a_scheduler_stepped_with_every_batch(eager: bool) -> None:
    fitted, looped = Setup(eager), Setup(eager)
    options: Any = {"scheduler_interval": "step", "batch_size": 4, "record_steps": True}
    scheduler = lr_scheduler.ExponentialLR(fitted.optimizer, 0.9)
    history = fitted.fit(3, scheduler=scheduler, **options)
    scheduler = lr_scheduler.ExponentialLR(looped.optimizer, 0.9)
    losses = []
    for _ in range(3):
        for begin in (0, 4, 8):
            data = (looped.x[begin : begin + 4], looped.y[begin : begin + 4])
            method = looped.method
            part = gdcore.fit(
                looped.model, nn.MSELoss(), looped.optimizer, data, epochs=1, method=method
            )
            losses.append(part.loss)
            scheduler.step()
    assert history.step_loss is not None
    assert torch.equal(history.step_loss, torch.cat(losses))
    assert all(map(torch.equal, fitted.state(), looped.state()))
    # Batches of 4, 4 and 2 rows.
    first = sum(n * loss.item() for n, loss in zip((4, 4, 2), losses[:3], strict=True)) / 10
    assert abs(history.loss[0].item() / first - 1) < 8 * 2**-53


def test_a_plateau_of_what_is_watched() -> None:
    setup = Setup()
    seen: list[float] = []

    class Watched(lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics: Any, epoch: Any = None) -> None:
            seen.append(float(metrics))
            super().step(metrics)

    history = setup.fit(
        scheduler=Watched(setup.optimizer),
        validation=(setup.x, setup.y),
        validate_every=5,
        metrics=["mae"],
        stop=gdcore.stop_when(no_improvement_for=1000, watch="mae"),
    )
    assert seen == history.validation["mae"].tolist()
    assert len(seen) == 5


@WAY
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nothing_between_epochs_changes_the_numbers(dtype: torch.dtype, eager: bool) -> None:
    """To the bit, however often the fit is looked at."""
    pytest.importorskip("tqdm", reason="progress needs its extra")
    ways: list[dict[str, Any]] = [
        {"callbacks": lambda *_: None},
        {"callbacks": [lambda *_: None], "callback_every": 7},
        {"validation": True, "validate_every": 4, "metrics": ("r2",)},
        {"log_every": 5},
        {"progress": True},
        {"stop": gdcore.stop_when(loss_below=-1.0)},
        {"log_every": 3, "callbacks": lambda *_: None, "callback_every": 5, "progress": True},
    ]
    plain = Setup(eager)
    plain.model.to(dtype)
    plain.x, plain.y = plain.x.to(dtype), plain.y.to(dtype)
    start = copy.deepcopy(plain)
    history = plain.fit(record_every=3)
    for way in ways:
        other = copy.deepcopy(start)
        other.optimizer = torch.optim.SGD(other.model.parameters(), lr=0.1, momentum=0.5)
        if "validation" in way:
            way = {**way, "validation": (other.x, other.y)}
        looked_at = other.fit(record_every=3, **way)
        assert torch.equal(history.loss, looked_at.loss)
        assert all(map(torch.equal, plain.state(), other.state()))
        for name, values in history.parameters.items():
            assert torch.equal(values, looked_at.parameters[name])
        assert looked_at.recorded_epochs == history.recorded_epochs


@WAY
@pytest.mark.parametrize("batch_size", [None, 4])
def test_two_fits_are_one(batch_size: int | None, eager: bool) -> None:
    whole, pieces = Setup(eager), Setup(eager)
    options: Any = {"batch_size": batch_size, "shuffle": batch_size is not None}
    torch.manual_seed(1)
    history = whole.fit(12, record_every=3, **options)
    torch.manual_seed(1)
    first = pieces.fit(6, record_every=3, **options)
    joined = first + pieces.fit(6, record_every=3, **options)
    assert torch.equal(history.loss, joined.loss)
    assert torch.equal(history.lr, joined.lr)
    assert history.recorded_epochs == joined.recorded_epochs == range(0, 12, 3)
    for name, values in history.parameters.items():
        assert torch.equal(values, joined.parameters[name])
    assert all(map(torch.equal, whole.state(), pieces.state()))


@WAY
@pytest.mark.parametrize("every", [1, 4, 100])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_callbacks(batch_size: int | None, every: int, eager: bool) -> None:
    """After the update of epochs 0, every, 2 every, …, with the loss before it."""
    setup = Setup(eager)
    calls: list[tuple[int, float, float]] = []

    def note(epoch: int, loss: float, model: nn.Module) -> None:
        assert model is setup.model
        assert isinstance(loss, float)
        calls.append((epoch, loss, model.get_parameter("weight").item()))

    history = setup.fit(callbacks=note, callback_every=every, record_every=1, batch_size=batch_size)
    weights = history.parameters["weight"].flatten().tolist()
    losses = history.loss.tolist()
    assert calls == [(e, losses[e], weights[e]) for e in range(0, EPOCHS, every)]
    assert not history.stopped


@WAY
def test_a_callback_that_returns_true_ends_the_fit(eager: bool) -> None:
    setup, other = Setup(eager), Setup(eager)
    called: list[int] = []
    callbacks = [lambda epoch, *_: epoch == 8, lambda epoch, *_: called.append(epoch)]
    history = setup.fit(callbacks=callbacks, callback_every=4)
    assert len(history.loss) == 9
    assert history.stopped
    assert "stopped" in repr(history)
    assert called == [0, 4, 8], "all of them are called"
    assert torch.equal(other.fit(9).loss, history.loss)
    assert all(map(torch.equal, setup.state(), other.state()))


@WAY
@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        (np.True_, True),
        (torch.tensor(True), True),
        (torch.tensor([True]), True),
        (np.False_, False),
        (torch.tensor(False), False),
        (1, False),
        (torch.tensor(1.0), False),
        ("stop", False),
        (None, False),
    ],
)
def test_what_is_true_is_true_whoever_says_it(answer: object, ends: bool, eager: bool) -> None:
    history = Setup(eager).fit(callbacks=lambda *_: answer)
    assert len(history.loss) == (1 if ends else EPOCHS)


@WAY
def test_a_callback_may_add_parameters_to_the_optimizer(eager: bool) -> None:
    """With another rate; the history knows none of them before."""
    setup, other = Setup(eager), Setup(eager)
    ends = []
    for one, cut in ((setup, False), (other, True)):
        bias = one.model.get_parameter("bias").requires_grad_(False)
        one.optimizer = torch.optim.SGD([one.model.get_parameter("weight")], lr=0.1)

        def add(one: Setup = one, bias: Tensor = bias) -> None:
            bias.requires_grad_(True)
            one.optimizer.add_param_group({"params": [bias], "lr": 0.01})

        if cut:
            first = one.fit(4)
            add()
            losses = torch.cat([first.loss, one.fit(EPOCHS - 4).loss])
        else:
            history = one.fit(callbacks=lambda epoch, *_: add() if epoch == 3 else None)
            losses = history.loss
            assert history.lr[:4, 0].eq(0.1).all()
            assert history.lr[:4, 1].isnan().all()
            assert history.lr[4:].tolist() == [[0.1, 0.01]] * (EPOCHS - 4)
        ends.append((losses, *(p.detach() for p in one.model.parameters())))
    assert all(map(torch.equal, *ends))


@WAY
def test_an_exception_of_a_callback_carries_the_history(eager: bool) -> None:
    setup, other = Setup(eager), Setup(eager)

    def fail(epoch: int, loss: float, model: object) -> None:
        if epoch == 5:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough") as info:
        setup.fit(callbacks=fail)
    history = info.value.history  # type: ignore[attr-defined]
    assert torch.equal(history.loss, other.fit(6).loss)
    assert all(map(torch.equal, setup.state(), other.state()))


@WAY
def test_callbacks_may_change_rates_and_parameters(eager: bool) -> None:
    setup, other = Setup(eager), Setup(eager)

    def change(epoch: int, loss: float, model: nn.Module) -> None:
        if epoch == 3:
            setup.optimizer.param_groups[0]["lr"] = 0.01
            nn.init.ones_(model.get_parameter("weight"))

    history = setup.fit(10, callbacks=change)
    other.fit(4)
    other.optimizer.param_groups[0]["lr"] = 0.01
    nn.init.ones_(other.model.get_parameter("weight"))
    rest = other.fit(6)
    assert torch.equal(history.loss[4:], rest.loss)
    assert history.lr.tolist() == [0.1] * 4 + [0.01] * 6


def test_a_fit_within_a_callback() -> None:
    setup, inner = Setup(), Setup()
    history = setup.fit(callbacks=lambda *_: inner.fit(2) and None, callback_every=10)
    assert torch.equal(history.loss, Setup().fit().loss)
    assert torch.equal(inner.fit(1).loss, Setup().fit(7).loss[-1:])


def test_the_seeds_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """The table of the notes, as gdcore's lessons have it: W and b start at 0, lr is 0.01."""
    from gdcore.lessons.agreement import close_lines
    from gdcore.lessons.golden import golden

    x, y = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[2.0], [4.0], [6.0]])
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=2000, log_every=100)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 20
    assert printed[1] == "Epoch  100/1999 W: 1.746, b: 0.578 Cost: 0.048171"
    # The same text, but for the last digit of a number that rounds the other way.
    assert close_lines(golden("linear_regression")["lines"], printed) is None


def test_lines_of_other_models(capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.ones(2, 3)
    linear = nn.Linear(3, 1, bias=False)
    nn.init.constant_(linear.weight, 0.25)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.0)
    data = (x, torch.zeros(2, 1))
    gdcore.fit(linear, nn.MSELoss(), optimizer, data, epochs=1, log_every=1)
    assert capsys.readouterr().out == "Epoch    0/0 W: [0.250, 0.250, 0.250] Cost: 0.562500\n"
    two = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 1, bias=False))
    for parameter in two.parameters():
        nn.init.constant_(parameter, 0.5)
    optimizer = torch.optim.SGD(two.parameters(), lr=0.0)
    gdcore.fit(two, nn.MSELoss(), optimizer, data, epochs=1, log_every=7)
    assert capsys.readouterr().out == (
        "Epoch    0/0 0.weight: [0.500, 0.500, 0.500], b: 0.500, 1.weight: 0.500 Cost: 1.000000\n"
    )
    W, b = (torch.zeros(1, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.SGD([W, b], lr=0.0)
    line_data = (x[:, :1], torch.ones(2, 1))
    gdcore.fit(lambda x: x * W + b, nn.MSELoss(), optimizer, line_data, epochs=1, log_every=1)
    assert capsys.readouterr().out == "Epoch    0/0 W: 0.000, b: 0.000 Cost: 1.000000\n"
