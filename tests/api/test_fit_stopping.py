"""Rules that end a fit, validation data and what they are judged by."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gdcore
from gdcore import stop_when

from ..devices import ON_CPU
from .refusal import refused
from .training_cases import line

pytestmark = pytest.mark.usefixtures("device")

WAY = pytest.mark.parametrize("method", ["stepwise", "eager"])


class Setup:
    def __init__(self, lr: float = 0.1) -> None:
        torch.manual_seed(0)
        self.model, self.x, self.y = line(rows=10, dtype=torch.float64)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr)

    def fit(self, epochs: int = 200, **options: Any) -> gdcore.History:
        options = {"loss_fn": nn.MSELoss(), "data": (self.x, self.y), **options}
        loss_fn, data = options.pop("loss_fn"), options.pop("data")
        return gdcore.fit(self.model, loss_fn, self.optimizer, data, epochs=epochs, **options)

    def parameters(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]


@WAY
def test_a_loss_below(method: str) -> None:
    """The loss is the last of the history, and its update is not made."""
    setup, whole = Setup(), Setup()
    losses = whole.fit(method=method).loss
    limit = losses[30].item()
    history = setup.fit(stop=stop_when(loss_below=limit), method=method)
    assert torch.equal(history.loss, losses[:32]), "the 31st is not below itself"
    assert history.stopped
    other = Setup()
    other.fit(31, method=method)
    assert all(map(torch.equal, setup.parameters(), other.parameters()))


@WAY
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.filterwarnings("ignore:optimizer. lr=.* is above:RuntimeWarning")
def test_no_improvement(cut: bool, method: str) -> None:
    """A rate that overshoots for good: the loss grows from the first epoch on."""
    setup = Setup(lr=1.2)
    options: Any = {"callbacks": lambda *_: None, "callback_every": 2} if cut else {}
    history = setup.fit(stop=stop_when(no_improvement_for=5), method=method, **options)
    losses = history.loss.tolist()
    best = losses.index(min(losses))
    assert len(losses) == best + 6
    assert history.stopped


def test_a_gradient_norm_below() -> None:
    setup = Setup()
    history = setup.fit(5000, stop=stop_when(gradient_norm_below=1e-3), method="eager")
    assert history.stopped

    def norm() -> float:
        loss = nn.functional.mse_loss(setup.model(setup.x), setup.y)
        grads = torch.autograd.grad(loss, list(setup.model.parameters()))
        return math.hypot(*(g.norm().item() for g in grads))

    assert norm() < 1e-3
    other = Setup()
    other.fit(len(history.loss) - 2, method="eager")
    setup = other
    assert norm() >= 1e-3


@WAY
def test_in_minibatches_the_rule_looks_at_epochs(method: str) -> None:
    setup, whole = Setup(), Setup()
    losses = whole.fit(batch_size=3, method=method).loss
    history = setup.fit(
        stop=stop_when(loss_below=losses[20].item() * 1.001), batch_size=3, method=method
    )
    assert torch.equal(history.loss, losses[: len(history.loss)])
    assert len(history.loss) <= 21
    assert history.loss[-1] < losses[20] * 1.001 <= history.loss[-2]
    with pytest.raises(ValueError, match="full batch"):
        setup.fit(stop=stop_when(gradient_norm_below=1.0), batch_size=3)


@WAY
def test_validation(method: str) -> None:
    """After the update of epochs 0, 7, 14, …."""
    setup = Setup()
    x, y = 3 * setup.x, 5 * setup.x + 1

    def largest(prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).abs().max()

    history = setup.fit(
        30,
        validation=(x, y),
        validate_every=7,
        metrics=("mse", "r2", "mae", largest),
        record_every=7,
        method=method,
    )
    assert history.validated_epochs == history.recorded_epochs == range(0, 30 + 5, 7)
    assert set(history.validation) == {"loss", "mse", "r2", "mae", "largest"}
    for i in range(5):
        weight, bias = (history.parameters[name][i].to(x.device) for name in ("weight", "bias"))
        error = nn.functional.linear(x, weight, bias) - y
        expected = {
            "loss": error.square().mean(),
            "mse": error.square().mean(),
            "mae": error.abs().mean(),
            "r2": 1 - error.square().sum() / (y - y.mean()).square().sum(),
            "largest": error.abs().max(),
        }
        for name, value in expected.items():
            # Sums of ten numbers, in another order.
            assert abs(history.validation[name][i] - value) <= 64 * 2**-53 * (1 + abs(value))


def test_validation_is_in_eval_mode_and_modes_come_back() -> None:
    x, y = torch.randn(8, 2), torch.randn(8, 1)
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Linear(2, 1))
    model[0].eval()
    modes: list[bool] = []
    model[1].register_forward_hook(lambda module, *_: modes.append(module.training))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=2, validation=(x, y))
    assert modes == [True, False, True, False]
    assert [module.training for module in model] == [False, True, True]
    assert model.training


def overfitting() -> tuple[nn.Module, torch.optim.SGD, Any, Any]:
    """Training goes to a weight of 2, validation is best at 1 on the way there."""
    x = torch.linspace(-1, 1, 10, dtype=torch.float64)[:, None]
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    return model, torch.optim.SGD(model.parameters(), lr=0.05), (x, 2 * x), (x, x)


@WAY
@pytest.mark.parametrize("watch", ["loss", "mae", "r2"])
@pytest.mark.parametrize("every", [1, 3])
def test_early_stopping_restores_the_best(every: int, watch: str, method: str) -> None:
    model, optimizer, data, validation = overfitting()
    stop = stop_when(no_improvement_for=6, watch=watch, restore_best=True)
    history = gdcore.fit(
        model,
        nn.MSELoss(),
        optimizer,
        data,
        epochs=1000,
        validation=validation,
        metrics=["mae", "r2"],
        validate_every=every,
        stop=stop,
        record_every=1,
        method=method,
    )
    assert history.stopped
    values = history.validation[watch] * (-1 if watch == "r2" else 1)
    best = int(values.argmin()) * every
    assert len(history.loss) == best + 6 + 1
    assert torch.equal(model.get_parameter("weight").cpu(), history.parameters["weight"][best])
    assert abs(model.get_parameter("weight").item() - 1) < 0.1


def test_what_is_no_number_is_no_best() -> None:
    """Nor does it hide the best that there was."""
    values = iter([9.0, 1.0, math.nan, 50.0, 40.0, 45.0, 30.0])
    seen: list[list[Tensor]] = []

    def score(h: Tensor, y: Tensor) -> float:
        return next(values, 60.0)

    setup = Setup()
    history = setup.fit(
        20,
        validation=(setup.x, setup.y),
        metrics=score,
        stop=stop_when(no_improvement_for=4, watch="score", restore_best=True),
        callbacks=lambda epoch, loss, model: seen.append(setup.parameters()),
    )
    # Before the first step each metric is tried once: 1 is the value of epoch 0.
    assert len(history.loss) == 5
    assert all(map(torch.equal, setup.parameters(), seen[0]))


@WAY
@pytest.mark.parametrize("held", [True, False])
def test_what_is_trained_later_is_restored_too(held: bool, method: str) -> None:
    """A bias that a callback unfreezes, or adds to the optimizer."""
    _, _, data, validation = overfitting()
    model = nn.Linear(1, 1, dtype=torch.float64)
    weight, bias = nn.init.zeros_(model.weight), nn.init.zeros_(model.bias).requires_grad_(False)
    optimizer = torch.optim.SGD([weight, bias] if held else [weight], lr=0.05)

    def unfreeze(epoch: int, loss: float, _: object) -> None:
        if epoch == 5:
            bias.requires_grad_(True)
            if not held:
                optimizer.add_param_group({"params": [bias]})

    x, y = data
    history = gdcore.fit(
        model,
        nn.MSELoss(),
        optimizer,
        (x, y + 1),
        epochs=60,
        callbacks=unfreeze,
        validation=(validation[0], validation[1] + 0.5),
        stop=stop_when(no_improvement_for=1000, watch="loss", restore_best=True),
        record_every=1,
        method=method,
    )
    best = int(history.validation["loss"].argmin())
    assert 5 < best < 59
    assert torch.equal(weight.cpu(), history.parameters["weight"][best])
    assert torch.equal(bias.cpu(), history.parameters["bias"][best])


def test_without_restoring_the_last_parameters_stay() -> None:
    model, optimizer, data, validation = overfitting()
    stop = stop_when(no_improvement_for=6, watch="loss")
    history = gdcore.fit(
        model,
        nn.MSELoss(),
        optimizer,
        data,
        epochs=1000,
        validation=validation,
        stop=stop,
        record_every=1,
    )
    assert torch.equal(model.get_parameter("weight").cpu(), history.parameters["weight"][-1])


def test_a_watched_loss_below() -> None:
    model, optimizer, data, validation = overfitting()
    stop = stop_when(loss_below=0.02, watch="loss")
    options: Any = {"validation": validation, "stop": stop}
    history = gdcore.fit(model, nn.MSELoss(), optimizer, data, epochs=1000, **options)
    losses = history.validation["loss"].tolist()
    assert losses[-1] < 0.02 <= losses[-2]
    assert history.loss[-1] > 0.02


def test_metrics() -> None:
    prediction, target = (
        torch.tensor([[1.0, 5.0], [2.0, 5.0]]),
        torch.tensor([[1.0, 5.0], [4.0, 5.0]]),
    )
    assert gdcore.metrics.mse(prediction, target) == 1.0
    assert gdcore.metrics.mae(prediction, target) == 0.5
    # 1 - 4 / 4.5 for the first output; the second has no variance and is met.
    assert abs(gdcore.metrics.r2(prediction, target).item() - (1 - 4 / 4.5 + 1) / 2) < 1e-6
    assert gdcore.metrics.r2(prediction + 1, target)[()] < 0.5
    for metric in (gdcore.metrics.mse, gdcore.metrics.mae, gdcore.metrics.r2):
        with refused(ValueError, "target", "(2, 2)", "(2,)"):
            metric(prediction, target[0])


RULES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "nothing": ({}, ValueError, "stop_when"),
    "a string": ({"loss_below": "1"}, TypeError, "loss_below"),
    "NaN": ({"loss_below": math.nan}, ValueError, "loss_below"),
    "a norm of nothing": ({"gradient_norm_below": 0.0}, ValueError, "gradient_norm_below"),
    "no epochs": ({"no_improvement_for": 0}, ValueError, "no_improvement_for"),
    "half an epoch": ({"no_improvement_for": 0.5}, TypeError, "no_improvement_for"),
    "r2 below": ({"loss_below": 0.5, "watch": "r2"}, ValueError, "loss_below"),
    "watch nothing": ({"gradient_norm_below": 0.5, "watch": "mse"}, ValueError, "watch"),
    "watch a number": ({"loss_below": 0.5, "watch": 3}, TypeError, "watch"),
    "no best": ({"loss_below": 0.5, "restore_best": True}, ValueError, "restore_best"),
}


@pytest.mark.parametrize("case", RULES)
def test_rules_that_make_no_sense(case: str) -> None:
    options, kind, argument = RULES[case]
    with refused(kind, argument):
        stop_when(**options)


def test_rules_that_do_not_fit_the_fit() -> None:
    setup = Setup()
    data = (setup.x, setup.y)
    with refused(TypeError, "stop", "float"):
        setup.fit(stop=0.5)
    with refused(ValueError, "stop", "validation", "'loss'"):
        setup.fit(stop=stop_when(loss_below=0.5, watch="loss"))
    with refused(ValueError, "stop", "loss, mae", "'mse'"):
        stop = stop_when(loss_below=0.5, watch="mse")
        setup.fit(stop=stop, validation=data, metrics=["mae"])
    with refused(ValueError, "metrics", "mse", "'f1'"):
        setup.fit(validation=data, metrics=["f1"])
    for metrics in (["mse", gdcore.metrics.mse], [abs, abs], [lambda h, y: 1.0, lambda h, y: 2.0]):
        with refused(ValueError, "metrics", "again"):
            setup.fit(validation=data, metrics=metrics)
    with refused(ValueError, "metrics", "'loss'"):

        def loss(h: Tensor, y: Tensor) -> float:
            return 0.0

        setup.fit(validation=data, metrics=loss)
    with refused(ValueError, "metrics", "validation"):
        setup.fit(metrics=["mse"])
    assert all(map(torch.equal, setup.parameters(), Setup().parameters()))


@ON_CPU  # torch shuffles on the default device, by a generator of the CPU's
def test_validation_of_a_fit_over_a_loader() -> None:
    setup = Setup()
    loader = DataLoader(TensorDataset(setup.x, setup.y), 4, shuffle=True)
    history = setup.fit(5, data=loader, validation=(setup.x, setup.y), metrics=("r2",))
    assert history.validation["r2"].shape == (5,)
