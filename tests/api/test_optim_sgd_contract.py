"""gdcore.optim.SGD as a torch.optim.Optimizer: state, closures, hooks, schedulers, versions."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim.optimizer import register_optimizer_step_post_hook

import gdcore

from .rounding import assert_within_rounding

pytestmark = pytest.mark.usefixtures("device_of_updates")

KINDS = (gdcore.optim.SGD, torch.optim.SGD)
OPTIONS: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}


def grads_for(step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    grad = torch.randn(8, dtype=torch.float64, generator=generator, device="cpu")
    return grad.to(torch.get_default_device())


def advance(optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = grads_for(step)
        optimizer.step()


def start() -> Parameter:
    return Parameter(grads_for(-1))


def all_torch(steps: int, **options: Any) -> Tensor:
    parameter = start()
    advance(torch.optim.SGD([parameter], foreach=False, **options), range(steps))
    return parameter.detach()


def assert_rounded_alike(actual: Tensor, expected: Tensor, steps: int) -> None:
    """Twelve roundings a step of terms that add up to less than 100 here."""
    assert_within_rounding(actual.detach(), expected, torch.full_like(expected, 100.0), 12 * steps)


@pytest.mark.parametrize(("first", "second"), [KINDS, KINDS[::-1]], ids=["to torch", "from torch"])
@pytest.mark.parametrize("how", ["dict", "file", "pickle"])
def test_state_moves_mid_run(
    how: str, first: type[torch.optim.SGD], second: type[torch.optim.SGD]
) -> None:
    parameter = start()
    optimizer = first([parameter], **OPTIONS)
    advance(optimizer, range(3))
    state = optimizer.state_dict()
    if how == "file":
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file)
    if how == "pickle":
        state = pickle.loads(pickle.dumps(state))
    other = second([parameter], lr=1e9)
    other.load_state_dict(state)
    advance(other, range(3, 7))
    assert_rounded_alike(parameter, all_torch(7, **OPTIONS), 7)


def test_state_dicts_have_the_same_content() -> None:
    states = []
    for kind in KINDS:
        for momentum in (0.0, 0.5):
            optimizer = kind([start()], lr=0.1, momentum=momentum)
            states.append(optimizer.state_dict())
            advance(optimizer, range(2))
            states.append(optimizer.state_dict())
    for ours, theirs in zip(states[:4], states[4:], strict=True):
        assert ours["param_groups"] == theirs["param_groups"]
        assert ours["state"].keys() == theirs["state"].keys()
        for key in theirs["state"]:
            assert ours["state"][key].keys() == theirs["state"][key].keys()


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_copies_go_on_alike(how: str) -> None:
    optimizer = gdcore.optim.SGD([start()], **OPTIONS)
    advance(optimizer, range(3))
    duplicate = (
        copy.deepcopy(optimizer) if how == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
    )
    assert type(duplicate) is gdcore.optim.SGD
    for each in (optimizer, duplicate):
        advance(each, range(3, 6))
    original, other = (each.param_groups[0]["params"][0] for each in (optimizer, duplicate))
    assert original is not other
    assert torch.equal(original, other)


@pytest.mark.parametrize("kind", KINDS)
def test_closure(kind: type[torch.optim.SGD]) -> None:
    parameter = Parameter(torch.tensor([1.0, 2.0]))
    optimizer = kind([parameter], lr=0.25)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure) for _ in range(3)]
    assert [loss.item() for loss in losses] == [5.0, 1.25, 0.3125]
    with torch.no_grad():
        assert optimizer.step(closure).requires_grad
    assert optimizer.step() is None


def test_hooks_fire_around_the_step() -> None:
    parameter = Parameter(torch.tensor([1.0]))
    parameter.grad = torch.tensor([1.0])
    optimizer = gdcore.optim.SGD([parameter], lr=0.5)
    seen: list[tuple[str, float]] = []
    before = optimizer.register_step_pre_hook(lambda *_: seen.append(("before", parameter.item())))
    after = optimizer.register_step_post_hook(lambda *_: seen.append(("after", parameter.item())))
    optimizer.step()
    before.remove()
    after.remove()
    optimizer.step()
    assert seen == [("before", 1.0), ("after", 0.5)]
    everywhere = register_optimizer_step_post_hook(
        lambda *_: seen.append(("global", parameter.item()))
    )
    optimizer.step()
    everywhere.remove()
    assert seen[2:] == [("global", -0.5)]


def schedulers(optimizer: torch.optim.Optimizer) -> list[torch.optim.lr_scheduler.LRScheduler]:
    module = torch.optim.lr_scheduler
    return [
        module.StepLR(optimizer, step_size=2, gamma=0.5),
        module.CosineAnnealingLR(optimizer, T_max=10),
    ]


@pytest.mark.parametrize(
    "lr", [0.1, torch.tensor(0.1, dtype=torch.float64)], ids=["float", "tensor"]
)
@pytest.mark.parametrize("which", [0, 1])
def test_schedulers_drive_the_rate(which: int, lr: float | Tensor) -> None:
    """Warnings are errors here: a scheduler that missed the step would raise."""
    results = []
    for kind in KINDS:
        parameter = start()
        optimizer = kind([parameter], lr=lr.clone() if isinstance(lr, Tensor) else lr, momentum=0.5)
        scheduler = schedulers(optimizer)[which]
        for step in range(6):
            advance(optimizer, range(step, step + 1))
            scheduler.step()
        results.append(parameter.detach())
    assert_rounded_alike(results[0], results[1], 6)


def test_cyclic_momentum() -> None:
    results = []
    for kind in KINDS:
        parameter = start()
        optimizer = kind([parameter], lr=0.01, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=8)
        for step in range(6):
            advance(optimizer, range(step, step + 1))
            scheduler.step()
        results.append(parameter.detach())
    assert_rounded_alike(results[0], results[1], 6)


def test_add_param_group() -> None:
    results = []
    for kind in KINDS:
        parameters = [start(), start()]
        optimizer = kind(parameters[:1], **OPTIONS)
        advance(optimizer, range(2))
        optimizer.add_param_group({"params": parameters[1:], "lr": 0.01, "nesterov": False})
        advance(optimizer, range(2, 6))
        results.append([p.detach() for p in parameters])
    for actual, expected in zip(*results, strict=True):
        assert_rounded_alike(actual, expected, 6)
    assert not torch.equal(*results[0])


def test_every_write_moves_the_version() -> None:
    parameter = start()
    optimizer = gdcore.optim.SGD([parameter], **OPTIONS)
    advance(optimizer, range(1))
    buffer = optimizer.state[parameter]["momentum_buffer"]
    for tensor in (parameter, buffer):
        before = tensor._version
        advance(optimizer, range(1, 2))
        assert tensor._version > before
    assert optimizer.state[parameter]["momentum_buffer"] is buffer
    assert not buffer.requires_grad


def test_a_stale_saved_parameter_is_an_error() -> None:
    parameter = start()
    optimizer = gdcore.optim.SGD([parameter], **OPTIONS)
    loss = (parameter**2).sum()
    advance(optimizer, range(1))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_are_read_only() -> None:
    parameter = start()
    optimizer = gdcore.optim.SGD([parameter], **{**OPTIONS, "maximize": True})
    parameter.grad = grads_for(0)
    for _ in range(2):
        optimizer.step()
        assert torch.equal(parameter.grad, grads_for(0))
        assert parameter.grad._version == 0
