"""Every optimizer here as its namesake: groups, scalers, shared memory, subclasses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import gdcore

from ..devices import UPDATES_ON_CPU
from .optimizers import FULL, MAKERS, NAMES, advance, close, everything, held, ours, start, theirs

pytestmark = pytest.mark.usefixtures("device_of_updates")

each = pytest.mark.parametrize("name", NAMES)


@each
def test_groups_frozen_parameters_and_missing_gradients(name: str) -> None:
    results = []
    for make in (ours, theirs):
        parameters = [start() for _ in range(4)]
        groups: list[dict[str, Any]] = [
            {"params": parameters[:2], "lr": 0.01, "weight_decay": 0.2},
            {"params": parameters[2:3], "maximize": True},
        ]
        optimizer = make(name, groups, **FULL[name])
        advance(optimizer, range(2))
        optimizer.add_param_group({"params": parameters[3:], "lr": 0.02})
        advance(optimizer, range(2, 4))
        parameters[1].requires_grad_(False).grad = None
        for step in range(4, 7):
            parameters[0].grad = parameters[1].grad = None
            parameters[2].grad = parameters[3].grad = torch.full((9,), 0.5 + step).double()
            optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        assert all(p.grad is None or not p.grad.any() for p in parameters)
        optimizer.step()
        optimizer.zero_grad()
        assert all(p.grad is None for p in parameters)
        before = [p.clone() for p in parameters]
        optimizer.step()
        assert all(map(torch.equal, before, parameters))
        results.append(everything(optimizer))
    close(*results)


@each
def test_closure(name: str) -> None:
    results = []
    for make in (ours, theirs):
        parameter = start()
        optimizer = make(name, [parameter], **FULL[name])

        def closure(p: Parameter = parameter, o: torch.optim.Optimizer = optimizer) -> Tensor:
            o.zero_grad()
            loss = (p**2).sum()
            loss.backward()
            return loss

        losses = [optimizer.step(closure) for _ in range(3)]
        with torch.no_grad():
            last = optimizer.step(closure=closure)
        assert last.requires_grad
        results.append([*losses, last, *everything(optimizer)])
    close(*results)


@each
@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events:UserWarning")  # torch 2.11's
def test_the_profiler_sees_the_step(name: str) -> None:
    optimizer = ours(name, [start()], lr=0.1)
    advance(optimizer, range(1))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        advance(optimizer, range(2))
        optimizer.zero_grad()
    for range_name, count in ((f"step#{name}.step", 2), (f"zero_grad#{name}.zero_grad", 1)):
        events = [e for e in profile.events() if e.name == f"Optimizer.{range_name}"]
        assert len(events) == count
        assert all(event.is_user_annotation for event in events)
    assert all(parameter.grad is None for parameter in held(optimizer))


@UPDATES_ON_CPU  # whose scaler it is
@each
@pytest.mark.parametrize("choice", [{}, {"fused": True}], ids=["default", "fused"])
def test_an_overflow_moves_nothing(name: str, choice: dict[str, bool]) -> None:
    if name == "RMSprop" and choice:
        pytest.skip("torch.optim.RMSprop has no fused")
    parameter = Parameter(torch.tensor([1.0, 2.0, 3.0]))
    optimizer = ours(name, [parameter], **FULL[name], **choice)
    plain = theirs(name, [Parameter(torch.tensor([1.0, 2.0, 3.0]))], **FULL[name])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step in range(6):
        before = [t.clone() for t in everything(optimizer)]
        versions = [t._version for t in everything(optimizer)]
        bad = step in (0, 3)
        optimizer.zero_grad()
        loss = (parameter**2).sum() * (float("inf") if bad else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if bad:
            assert all(map(torch.equal, before, everything(optimizer)))
            assert versions == [t._version for t in everything(optimizer)]
        else:
            (other,) = held(plain)
            other.grad = 2 * other.detach()
            plain.step()
            close([parameter.detach().float()], [parameter.detach()])
            torch.testing.assert_close(parameter, other)


@each
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_that_are_not_finite(name: str, bad: float, dtype: torch.dtype) -> None:
    results = []
    for make in (ours, theirs):
        parameter = start(dtype)
        optimizer = make(name, [parameter], **FULL[name])
        advance(optimizer, range(1))
        assert parameter.grad is not None
        parameter.grad[::2] = bad
        optimizer.step()
        advance(optimizer, range(2, 4))
        results.append([t.detach() for t in everything(optimizer)])
    for actual, expected in zip(*results, strict=True):
        assert torch.equal(actual.isnan(), expected.isnan())
        assert torch.equal(actual.isinf(), expected.isinf())
        torch.testing.assert_close(actual, expected, equal_nan=True)
    assert results[0][0].isnan().any()


@UPDATES_ON_CPU  # elsewhere those with gaps are torch's, and go first
@each
def test_parameters_that_share_memory_are_updated_in_turn(name: str) -> None:
    """Also where there is work for several threads, and where some have gaps in their memory."""
    for size in (5, 2**18 + 3):
        results = []
        for make in (ours, theirs):
            memory = torch.ones(2 * size, dtype=torch.float64)
            parameters = [Parameter(memory[i : size + i]) for i in range(2)]
            parameters += [Parameter(memory[::2]), Parameter(memory[2 : size + 2])]
            optimizer = make(name, parameters, **FULL[name])
            advance(optimizer, range(2))
            results.append([memory])
        close(*results)


@each
def test_one_memory_under_many_parameters(name: str, set_threads: Callable[[int], None]) -> None:
    """As many elements as threads would share, in tensors of one chunk each: one at a time."""
    set_threads(8)
    results = []
    for make in (ours, theirs):
        memory = torch.ones(2**15, dtype=torch.float64)
        optimizer = make(name, [Parameter(memory) for _ in range(64)], **FULL[name])
        advance(optimizer, range(4))
        results.append([memory])
    close(*results)


@each
@pytest.mark.parametrize("maker", MAKERS)
def test_gradients_are_read_only(name: str, maker: str) -> None:
    parameter = start()
    optimizer = MAKERS[maker](name, [parameter], **{**FULL[name], "maximize": True})
    parameter.grad = grad = torch.linspace(1, 2, 9, dtype=torch.float64)
    before = grad.clone()
    for _ in range(2):
        optimizer.step()
        assert torch.equal(grad, before)
        assert grad._version == 0


@each
def test_a_subclass_of_its_own(name: str) -> None:
    base = getattr(gdcore.optim, name)

    class Counting(base):  # type: ignore[misc, valid-type]
        steps = 0

        def step(self, closure: Any = None) -> Any:
            self.steps += 1
            return super().step(closure)

    results = []
    for optimizer in (Counting([start()], **FULL[name]), theirs(name, [start()], **FULL[name])):
        advance(optimizer, range(3))
        results.append(everything(optimizer))
    close(*results)
    assert issubclass(base, getattr(torch.optim, name))


@each
def test_groups_in_a_tuple(name: str) -> None:
    results = []
    for make in (ours, theirs):
        optimizer: Any = make(name, [start()], **FULL[name])
        optimizer.param_groups = tuple(optimizer.param_groups)
        advance(optimizer, range(3))
        results.append(everything(optimizer))
    close(*results)
