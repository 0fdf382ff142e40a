"""train_step and fit with RMSprop, Adam and AdamW: the bits of gdcore's own parts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdcore

from .training_cases import twin

pytestmark = pytest.mark.usefixtures("device")

KINDS = ("SGD", "RMSprop", "Adam", "AdamW")
OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "RMSprop": {"momentum": 0.5, "weight_decay": 0.1},
    "Adam": {"amsgrad": True, "weight_decay": 0.1},
    "AdamW": {"betas": (0.8, 0.9)},
}
MODULES = {"torch": torch.optim, "gdcore": gdcore.optim}


def data(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 3, generator=generator, dtype=dtype, device="cpu")
    noise = torch.randn(30, 1, generator=generator, dtype=dtype, device="cpu")
    y, device = x.sum(1, keepdim=True) + noise, torch.get_default_device()
    return x.to(device), y.to(device)


def model(dtype: torch.dtype) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1, dtype=dtype)


def by_parts(m: nn.Linear, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss = gdcore.functional.linear_mse_loss(x, m.weight, m.bias, y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def everything(m: nn.Linear, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    states = [optimizer.state.get(p, {}) for p in m.parameters()]
    return [
        *(p.detach().clone() for p in m.parameters()),
        *(state[key].clone() for state in states for key in sorted(state)),
    ]


@pytest.fixture
def on_cpu(request: pytest.FixtureRequest) -> bool:
    """Whether it is the CPU's own kernels that are at work."""
    return bool(request.node.callspec.params["device"] == "cpu")


def assert_same(actual: list[Tensor], expected: list[Tensor], to_the_bit: bool) -> None:
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        # Elsewhere loops add in another order: six steps of numbers around 10, each with the
        # roundings of thirty rows.
        slack = 0.0 if to_the_bit else 6 * 64 * torch.finfo(e.dtype).eps
        torch.testing.assert_close(a, e, rtol=slack, atol=slack)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["train_step", "fit"])
def test_as_the_parts(way: str, kind: str, module: str, dtype: torch.dtype, on_cpu: bool) -> None:
    (x, y), mine = data(dtype), model(dtype)
    theirs = twin(mine)
    assert isinstance(theirs, nn.Linear)
    optimizer = getattr(MODULES[module], kind)(mine.parameters(), lr=0.05, **OPTIONS[kind])
    other = getattr(gdcore.optim, kind)(theirs.parameters(), lr=0.05, **OPTIONS[kind])
    if way == "fit":
        losses = gdcore.fit(mine, nn.MSELoss(), optimizer, (x, y), epochs=5).loss
    else:
        step = gdcore.train_step(mine, nn.MSELoss(), optimizer)
        losses = torch.stack([step(x, y) for _ in range(5)])
    expected = torch.stack([by_parts(theirs, other, x, y) for _ in range(5)])
    assert_same([losses.to(x.device)], [expected], on_cpu)
    assert_same(everything(mine, optimizer), everything(theirs, other), on_cpu)


Change = Callable[[nn.Linear, torch.optim.Optimizer], Any]

CHANGES: dict[str, Change] = {
    "lr": lambda m, o: o.param_groups[0].update(lr=0.5),
    "betas": lambda m, o: o.param_groups[0].update(betas=(0.1, 0.2)),
    "eps": lambda m, o: o.param_groups[0].update(eps=0.1),
    "weight decay": lambda m, o: o.param_groups[0].update(weight_decay=0.3),
    "a count": lambda m, o: o.state[m.weight]["step"].fill_(1000.0),
    "an average": lambda m, o: o.state[m.weight]["exp_avg"].zero_(),
    "no state": lambda m, o: o.state.clear(),
    "frozen": lambda m, o: m.bias.requires_grad_(False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_steps_is_followed(change: str, on_cpu: bool) -> None:
    x, y = data(torch.float64)
    results = []
    for native in (True, False):
        m = model(torch.float64)
        optimizer = gdcore.optim.Adam(m.parameters(), lr=0.05)
        step = gdcore.train_step(m, nn.MSELoss(), optimizer)
        for index in range(6):
            if index == 3:
                before = everything(m, optimizer)
                CHANGES[change](m, optimizer)
            step(x, y) if native else by_parts(m, optimizer, x, y)
        results.append(everything(m, optimizer))
        assert not all(map(torch.equal, before, results[-1]))
    assert_same(*results, on_cpu)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("setting", ["differentiable", "capturable"])
def test_settings_that_torch_is_left_to_follow(kind: str, setting: str, on_cpu: bool) -> None:
    m = model(torch.float64)
    optimizer = getattr(torch.optim, kind)(m.parameters(), lr=0.05)
    optimizer.param_groups[0][setting] = True
    where = "" if on_cpu else " in a native loop"
    told = f"^optimizer: expected {setting}=False{where}, got True$"
    with pytest.raises(ValueError, match=told):
        gdcore.train_step(m, nn.MSELoss(), optimizer, strict=True)


def test_a_state_made_in_inference_mode_outlives_it() -> None:
    (x, y), m = data(torch.float64), model(torch.float64)
    optimizer = torch.optim.Adam(m.parameters(), lr=0.05)
    step = gdcore.train_step(m, nn.MSELoss(), optimizer)
    with torch.inference_mode():
        step(x, y)
    states = optimizer.state[m.weight]
    assert not any(value.is_inference() for value in states.values())
    m.weight.grad = torch.ones_like(m.weight)
    optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_recognised_is_updated_by_gdcore_too(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a scheduler has wrapped the step; not when somebody else has replaced it."""
    x, y = data(torch.float32)
    network = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))
    optimizer = getattr(torch.optim, kind)(network.parameters(), lr=0.05)
    ours, calls = getattr(gdcore.optim, kind), []
    own = ours.step
    monkeypatch.setattr(ours, "step", lambda self: (calls.append("gdcore"), own(self)))
    step = gdcore.train_step(network, nn.MSELoss(), optimizer)
    step(x, y)
    torch.optim.lr_scheduler.ConstantLR(optimizer)
    step(x, y)
    assert calls == ["gdcore"] * 2
    optimizer.step = lambda: calls.append("another")
    step(x, y)
    assert calls[2:] == ["another"]
