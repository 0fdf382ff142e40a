"""Callbacks that change which parameters there are, and which of them are trained."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdcore

pytestmark = pytest.mark.usefixtures("device")

EPOCHS, WHEN = 30, 10
METHODS = pytest.mark.parametrize("method", ["stepwise", "compressed", "eager"])


class Wrapped(nn.Module):
    """Natively known by what it does alone."""

    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        prediction: Tensor = self.l(x)
        return prediction


class Setup:
    """The same each time, in float64."""

    def __init__(self, build: Callable[[], nn.Module], frozen: bool, held: bool = True) -> None:
        torch.manual_seed(0)
        self.model = build().double()
        self.layer: Any = next(m for m in self.model.modules() if isinstance(m, nn.Linear))
        self.x = torch.randn(50, 3, dtype=torch.float64)
        self.y = self.x.sum(1, keepdim=True) + 5
        self.layer.bias.requires_grad_(not frozen)
        parameters = [self.layer.weight, self.layer.bias] if held else [self.layer.weight]
        self.optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.5)

    def loop(self, change: Callable[["Setup"], None]) -> tuple[list[float], list[Tensor]]:
        """Plain PyTorch."""
        losses, records = [], []
        for epoch in range(EPOCHS):
            self.optimizer.zero_grad()
            loss = nn.functional.mse_loss(self.model(self.x), self.y)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
            if epoch == WHEN:
                change(self)
            records.append(self.layer.bias.detach().clone())
        return losses, records

    def fit(self, change: Callable[["Setup"], None], **options: Any) -> gdcore.History:
        def callback(epoch: int, loss: float, model: nn.Module) -> None:
            if epoch == WHEN:
                change(self)

        data = self.x, self.y
        options = {"epochs": EPOCHS, "callbacks": callback, **options}
        return gdcore.fit(self.model, nn.MSELoss(), self.optimizer, data, **options)


def unfreeze(setup: Setup) -> None:
    setup.layer.bias.requires_grad_(True)


def add(setup: Setup) -> None:
    unfreeze(setup)
    setup.optimizer.add_param_group({"params": [setup.layer.bias], "lr": 0.02})


def fill(setup: Setup) -> None:
    nn.init.constant_(setup.layer.bias, 3.0)


def fill_data(setup: Setup) -> None:
    setup.layer.bias.data.fill_(3.0)


def freeze(setup: Setup) -> None:
    setup.layer.weight.requires_grad_(False)


def exchange(setup: Setup) -> None:
    setup.layer.weight = nn.Parameter(torch.full_like(setup.layer.weight, 3.0))
    parameters = [setup.layer.weight, setup.layer.bias]
    setup.optimizer.param_groups[0]["params"] = parameters


def swap(setup: Setup) -> None:
    freeze(setup)
    unfreeze(setup)


CHANGES: dict[str, tuple[Callable[[Setup], None], dict[str, bool]]] = {
    "unfreezes": (unfreeze, {"frozen": True}),
    "adds": (add, {"frozen": True, "held": False}),
    "fills a frozen one": (fill, {"frozen": True}),
    "fills the data of a frozen one": (fill_data, {"frozen": True, "held": False}),
    "freezes": (freeze, {"frozen": False}),
    "exchanges": (exchange, {"frozen": False}),
    "freezes one and unfreezes another": (swap, {"frozen": True}),
}
BUILDS: dict[str, Callable[[], nn.Module]] = {"Linear": lambda: nn.Linear(3, 1), "own": Wrapped}


@METHODS
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("name", CHANGES)
def test_what_a_callback_changes_counts_at_once(name: str, build: str, method: str) -> None:
    change, options = CHANGES[name]
    fitted, looped = (Setup(BUILDS[build], **options) for _ in range(2))
    history = fitted.fit(change, method=method)
    losses, _ = looped.loop(change)
    assert history.plan.method == method
    torch.testing.assert_close(history.loss.tolist(), losses, rtol=1e-11, atol=1e-13)
    ends = [list(one.model.parameters()) for one in (fitted, looped)]
    torch.testing.assert_close(*ends, rtol=1e-11, atol=1e-13)


@METHODS
@pytest.mark.parametrize("name", ["unfreezes", "adds", "exchanges"])
def test_records_of_what_is_trained_later(name: str, method: str) -> None:
    change, options = CHANGES[name]
    fitted, looped = (Setup(Wrapped, **options) for _ in range(2))
    start = fitted.layer.bias.detach().clone()
    history = fitted.fit(change, method=method, record_every=1)
    _, records = looped.loop(change)
    recorded = history.parameters["l.bias"]
    torch.testing.assert_close(recorded, torch.stack(records).cpu(), rtol=1e-11, atol=1e-13)
    assert torch.equal(history.start["l.bias"], start.cpu())
    assert history.parameters["l.weight"].shape == (EPOCHS, 1, 3)


def test_records_of_what_is_trained_no_longer() -> None:
    fitted, looped = (Setup(Wrapped, frozen=True) for _ in range(2))
    history = fitted.fit(swap, method="stepwise", record_every=1)
    _, records = looped.loop(swap)
    weights = history.parameters["l.weight"]
    assert len(weights) == EPOCHS
    assert weights[WHEN:].eq(weights[WHEN]).all()
    assert not torch.equal(weights[WHEN - 1], weights[WHEN])
    torch.testing.assert_close(history.parameters["l.bias"], torch.stack(records).cpu())


@METHODS
def test_a_function_of_a_tensor_that_is_added(method: str) -> None:
    """No module says what it is called, or that it is there."""
    ends = []
    for native in (True, False):
        torch.manual_seed(0)
        x = torch.randn(50, 3, dtype=torch.float64)
        w, b = torch.zeros(3, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        optimizer = torch.optim.SGD([w.requires_grad_(True)], lr=0.05)

        def model(x: Tensor, w: Tensor = w, b: Tensor = b) -> Tensor:
            return x @ w + b

        def later(epoch: int, *_: Any, optimizer: Any = optimizer, b: Tensor = b) -> None:
            if epoch == WHEN:
                optimizer.add_param_group({"params": [b.requires_grad_(True)], "lr": 0.1})

        if native:
            data = x, x.sum(1, keepdim=True) + 5
            options: Any = {"epochs": EPOCHS, "record_every": 1, "callbacks": later}
            history = gdcore.fit(model, nn.MSELoss(), optimizer, data, method=method, **options)
            assert all(len(values) == EPOCHS for values in history.parameters.values())
            assert len(history.parameters) == 2
        else:
            for epoch in range(EPOCHS):
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x), x.sum(1, keepdim=True) + 5).backward()
                optimizer.step()
                later(epoch)
        ends.append((w.detach(), b.detach()))
    torch.testing.assert_close(*ends, rtol=1e-11, atol=1e-13)


@METHODS
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("batch_size", [None, 20])
def test_parameters_that_the_optimizer_does_not_hold(
    batch_size: int | None, build: str, method: str
) -> None:
    """``load_state_dict`` with ``assign`` leaves the optimizer with parameters of no model."""
    setup = Setup(BUILDS[build], frozen=False)
    method = "auto" if method == "compressed" and batch_size else method

    def assign(setup: Setup) -> None:
        state = {name: value.clone() for name, value in setup.model.state_dict().items()}
        setup.model.load_state_dict(state, assign=True)

    with pytest.raises(ValueError, match="hold a parameter of model") as info:
        setup.fit(assign, method=method, batch_size=batch_size)
    assert len(info.value.history.loss) == WHEN + 1  # type: ignore[attr-defined]


@METHODS
def test_a_record_of_another_shape(method: str) -> None:
    setup = Setup(Wrapped, frozen=False)

    def widen(setup: Setup) -> None:
        setup.layer.bias = nn.Parameter(torch.zeros(50, 1, dtype=torch.float64))
        setup.optimizer.param_groups[0]["params"] = [setup.layer.weight, setup.layer.bias]

    words = r"record_every: expected l\.bias to stay of shape \(1,\), got \(50, 1\)"
    with pytest.raises(ValueError, match=words) as info:
        setup.fit(widen, method=method, record_every=1)
    assert len(info.value.history.parameters["l.bias"]) == WHEN + 1  # type: ignore[attr-defined]


def test_lines_of_what_is_trained_later(capsys: pytest.CaptureFixture[str]) -> None:
    setup = Setup(Wrapped, frozen=True)
    setup.fit(unfreeze, log_every=WHEN, method="stepwise")
    lines = capsys.readouterr().out.splitlines()
    assert ["b:" in line for line in lines] == [False, False, True]


@pytest.mark.parametrize("name", ["unfreezes", "adds", "exchanges"])
def test_an_epoch_that_fails_leaves_nothing_of_what_is_trained_later(name: str) -> None:
    change, options = CHANGES[name]
    whole, broken = (Setup(Wrapped, **options) for _ in range(2))
    whole.fit(change, batch_size=20, method="eager", epochs=WHEN + 3)
    calls = 0

    def fail(module: nn.Module, x: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3 * (WHEN + 3) + 2:
            raise KeyboardInterrupt

    broken.model.register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt) as info:
        broken.fit(change, batch_size=20, method="eager")
    assert len(info.value.history.loss) == WHEN + 3  # type: ignore[attr-defined]
    ends = [list(one.model.parameters()) for one in (whole, broken)]
    torch.testing.assert_close(*ends, rtol=0, atol=0)
