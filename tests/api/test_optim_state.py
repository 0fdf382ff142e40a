"""The state of every optimizer here is its namesake's: moved between them, copied, changed."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch

import gdcore

from .optimizers import FULL, NAMES, advance, close, everything, held, ours, start, theirs

pytestmark = pytest.mark.usefixtures("device_of_updates")

each = pytest.mark.parametrize("name", NAMES)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fused", [None, True])
def test_state_dicts_have_the_same_content(
    name: str, dtype: torch.dtype, fused: bool | None
) -> None:
    choice = {} if fused is None or name == "RMSprop" else {"fused": True, "foreach": None}
    states = []
    for make in (ours, theirs):
        for options in ({}, FULL[name]):
            optimizer = make(name, [start(dtype)], **{"foreach": False, **options, **choice})
            states.append(optimizer.state_dict())
            advance(optimizer, range(2))
            states.append(optimizer.state_dict())
    for mine, other in zip(states[:4], states[4:], strict=True):
        assert mine["param_groups"] == other["param_groups"]
        assert mine["state"].keys() == other["state"].keys()
        for key in other["state"]:
            a, b = mine["state"][key], other["state"][key]
            assert list(a) == list(b)
            for what in b:
                assert (a[what].dtype, a[what].shape, a[what].requires_grad) == (
                    b[what].dtype,
                    b[what].shape,
                    b[what].requires_grad,
                ), what


@each
@pytest.mark.parametrize("direction", ["to torch", "from torch"])
@pytest.mark.parametrize("how", ["dict", "file", "pickle"])
def test_state_moves_mid_run(name: str, how: str, direction: str) -> None:
    first, second = (ours, theirs) if direction == "to torch" else (theirs, ours)
    parameter = start()
    optimizer = first(name, [parameter], **FULL[name])
    advance(optimizer, range(3))
    state: Any = optimizer.state_dict()
    if how == "file":
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    if how == "pickle":
        state = pickle.loads(pickle.dumps(state))
    other = second(name, [parameter], lr=1e9)
    other.load_state_dict(state)
    advance(other, range(3, 7))
    expected = theirs(name, [start()], **FULL[name])
    advance(expected, range(7))
    close(everything(other), everything(expected))


@each
@pytest.mark.parametrize("how", ["pickle", "deepcopy", "file"])
def test_copies_go_on_alike(name: str, how: str) -> None:
    optimizer = ours(name, [start()], **FULL[name])
    advance(optimizer, range(3))
    if how == "deepcopy":
        duplicate = copy.deepcopy(optimizer)
    elif how == "pickle":
        duplicate = pickle.loads(pickle.dumps(optimizer))
    else:
        file = io.BytesIO()
        torch.save(optimizer, file)
        file.seek(0)
        duplicate = torch.load(file, weights_only=False)
    assert type(duplicate) is getattr(gdcore.optim, name)
    for one in (optimizer, duplicate):
        advance(one, range(3, 6))
    assert held(optimizer)[0] is not held(duplicate)[0]
    assert all(map(torch.equal, everything(optimizer), everything(duplicate)))


@each
def test_state_that_was_changed_between_steps_counts(name: str) -> None:
    """Nothing is remembered from step to step but what torch remembers."""
    results = []
    for make in (ours, theirs):
        parameters = [start(), start()]
        optimizer = make(name, parameters, **FULL[name])
        advance(optimizer, range(2))
        optimizer.state.pop(parameters[0])
        for value in optimizer.state[parameters[1]].values():
            value.mul_(2)
        advance(optimizer, range(2, 4))
        parameters[0].data = parameters[0].data.clone() + 1
        key = sorted(optimizer.state[parameters[1]])[0]
        optimizer.state[parameters[1]][key] = optimizer.state[parameters[1]][key].clone()
        optimizer.param_groups[0]["lr"] = 0.02
        optimizer.param_groups[0]["params"] = parameters[::-1]
        advance(optimizer, range(4, 6))
        optimizer.state.clear()
        advance(optimizer, range(6, 8))
        results.append(everything(optimizer))
    close(*results)
