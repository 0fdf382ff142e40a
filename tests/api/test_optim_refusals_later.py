"""What cannot be used is refused before anything moves, also where torch finds it out midway."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import Parameter

from ..devices import UPDATES_NOT_EMULATED
from .optimizers import FULL, NAMES, advance, everything, held, ours, start, theirs
from .refusal import nothing_written

each = pytest.mark.parametrize("name", NAMES)

SETTINGS: list[tuple[str, Any]] = [
    ("lr", None),
    ("lr", "0.1"),
    ("lr", torch.tensor([0.1, 0.2])),
    ("lr", torch.tensor(1j)),
    ("lr", np.bool_(True)),
    ("eps", None),
    ("eps", "x"),
    ("momentum", "x"),
    ("dampening", None),
    ("weight_decay", None),
    ("weight_decay", torch.ones(2)),
    ("alpha", "x"),
    ("betas", (0.9, "x")),
    ("betas", (1.0, 0.9)),
    ("betas", (None, 0.9)),
]


def outcome(optimizer: torch.optim.Optimizer) -> Exception | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            optimizer.step()
        except Exception as error:
            return error
    return None


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize(("key", "value"), SETTINGS, ids=str)
def test_a_setting_written_later(name: str, key: str, value: Any, dtype: torch.dtype) -> None:
    """In the second group, and a complex parameter's step is torch's in any case."""
    outcomes = []
    for make in (ours, theirs):
        parameters = [Parameter(torch.ones(3, dtype=dtype)) for _ in range(2)]
        optimizer = make(name, [{"params": [p]} for p in parameters], **FULL[name])
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        if key not in optimizer.param_groups[1]:
            pytest.skip("not a setting of this optimizer")
        optimizer.param_groups[1][key] = value
        if make is theirs:
            outcomes.append(outcome(optimizer))
            continue
        before = [t.detach().clone() for t in everything(optimizer)]
        outcomes.append(outcome(optimizer))
        moved = [not torch.equal(*pair) for pair in zip(before, everything(optimizer), strict=True)]
    mine, other = outcomes
    assert type(mine) is type(other)
    if mine is not None:
        assert not any(moved)
        assert str(mine).startswith(f"param_groups[1]['{key}']: expected ")
        assert ", got " in str(mine)


BIG = (3.3e38, 3.41e38, 1e39, -1e39, 1e308, math.inf, -math.inf, math.nan)
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}],
    "RMSprop": [{}, {"momentum": 0.5, "centered": True}],
    "Adam": [{}, {"amsgrad": True}, {"decoupled_weight_decay": True}],
    "AdamW": [{"weight_decay": 0.0}, {}],
}
BIG_SETTINGS = [
    (name, options, key)
    for name in NAMES
    for options in OPTIONS[name]
    for key in ("lr", "eps", "momentum", "dampening", "weight_decay", "alpha")
    if key in getattr(torch.optim, name)([torch.zeros(1)]).defaults
]


# The other tests are of what torch's steps refuse, which is rehearsed on the CPU.
@pytest.mark.usefixtures("device_of_updates")
@UPDATES_NOT_EMULATED
@pytest.mark.parametrize("wrap", [float, torch.tensor], ids=["number", "tensor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "options", "key"), BIG_SETTINGS, ids=str)
def test_a_setting_too_large_for_float32(
    name: str, options: dict[str, Any], key: str, dtype: torch.dtype, wrap: Callable[..., Any]
) -> None:
    """Refused at the step at which torch refuses it: at the first, or the second. Half types are
    computed in float32, to whose range alone torch holds some settings of theirs."""
    if wrap is torch.tensor and key != "lr":
        pytest.skip("a number only")
    double = {} if wrap is float else {"dtype": torch.float64, "device": "cpu"}
    for value in BIG:
        results: list[list[Any]] = []
        for make in (ours, theirs):
            own = torch.float32 if make is theirs and dtype is torch.bfloat16 else dtype
            optimizer = make(name, [start(own)], **{"lr": 0.1, **options})
            optimizer.add_param_group({"params": [start(own)], "foreach": False})
            optimizer.param_groups[1][key] = wrap(value, **double)
            results.append([])
            for _ in range(2):
                for parameter in held(optimizer):
                    parameter.grad = torch.ones_like(parameter)
                before = [t.detach().clone() for t in everything(optimizer)]
                refusal = outcome(optimizer)
                results[-1].append(type(refusal))
                if refusal is None:
                    continue
                if make is ours:
                    assert all(map(torch.equal, before, everything(optimizer)))
                    assert str(refusal).startswith(f"param_groups[1]['{key}']: expected ")
                    assert "float32" in str(refusal)
                    assert ", got " in str(refusal)
                break
            finite = [t.detach().isfinite().all().item() for t in held(optimizer)]
            if refusal is None:
                results[-1].append(finite)
        assert results[0] == results[1], value


STATES: dict[str, Callable[[Any, Any, Any], None]] = {
    "a word as a state": lambda o, p, key: o.state[p].update({key: "x"}),
    "a number as a state": lambda o, p, key: o.state[p].update({key: 7.0}),
    "a word as all states": lambda o, p, key: o.state.update({p: "x"}),
    "none as all states": lambda o, p, key: o.state.update({p: None}),
    "a plain dict": lambda o, p, key: setattr(o, "state", {}),
    "half a plain dict": lambda o, p, key: setattr(o, "state", {next(iter(o.state)): {}}),
    "another dtype": lambda o, p, key: o.state[p].update({key: o.state[p][key].double()}),
    "complex": lambda o, p, key: o.state[p].update({key: o.state[p][key].cfloat()}),
    "sparse": lambda o, p, key: o.state[p].update({key: o.state[p][key].to_sparse()}),
}


@each
@pytest.mark.parametrize("change", STATES)
@pytest.mark.filterwarnings("ignore")
def test_a_state_written_later(name: str, change: str) -> None:
    """Of the second parameter. What torch takes, or refuses, whatever has moved there by then."""
    outcomes, after = [], []
    for make in (ours, theirs):
        parameters = [Parameter(torch.ones(3)) for _ in range(2)]
        optimizer = make(name, parameters, **FULL[name])
        advance(optimizer, range(1))
        first = parameters[1]
        key = sorted(k for k in optimizer.state[first] if k != "step")[-1]
        STATES[change](optimizer, first, key)
        before = [p.detach().clone() for p in parameters]
        for values in optimizer.state.values():
            if isinstance(values, dict):
                before += [v.clone() for v in values.values() if isinstance(v, Tensor)]
        outcomes.append(outcome(optimizer))
        now = [p.detach() for p in parameters]
        after.append(now)
        if make is ours and outcomes[0] is not None:
            for values in optimizer.state.values():
                if isinstance(values, dict):
                    now += [v for v in values.values() if isinstance(v, Tensor)]
            assert len(now) == len(before)
            assert all(
                torch.equal(a.to_dense(), b.to_dense()) for a, b in zip(now, before, strict=True)
            )
    mine, other = outcomes
    assert type(mine) is type(other), (mine, other)
    if mine is None:
        for a, b in zip(*after, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["RMSprop", "Adam", "AdamW"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
def test_a_dtype_changed_midway(name: str, dtype: torch.dtype) -> None:
    """torch counts a step of Adam, and then finds that its averages are of another dtype."""
    outcomes = []
    for make in (ours, theirs):
        model = nn.Linear(2, 1)
        optimizer = make(name, model.parameters(), **FULL[name])
        advance(optimizer, range(1))
        model.to(dtype)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        before = [t.detach().clone() for t in everything(optimizer)]
        outcomes.append(outcome(optimizer))
        if make is ours and outcomes[0] is not None:
            assert all(map(torch.equal, before, everything(optimizer)))
    mine, other = outcomes
    # Half types enter in float32, as such averages are: no reason to refuse them.
    assert type(mine) is type(other) or (mine is None and dtype == torch.bfloat16), outcomes


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW"])
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly")  # until torch 2.12
def test_a_sparse_gradient_after_a_complex_one(name: str) -> None:
    """Both are torch's to update; where it refuses the second, the first has moved there."""
    first = Parameter(torch.ones(3, dtype=torch.complex64))
    second = Parameter(torch.ones(3))
    first.grad = torch.ones_like(first)
    second.grad = torch.sparse_coo_tensor([[0, 2]], torch.ones(2), (3,), check_invariants=True)
    options = {"weight_decay": 0.1} if name == "SGD" else {}
    optimizer = ours(name, [{"params": [p]} for p in (first, second)], lr=0.1, **options)
    with (
        nothing_written(first, optimizer=optimizer),
        pytest.raises(RuntimeError, match="sparse"),
    ):
        optimizer.step()
    assert second.tolist() == [1.0] * 3


@each
def test_an_expanded_parameter_after_a_complex_one(name: str) -> None:
    first = Parameter(torch.ones(3, dtype=torch.complex64))
    second = Parameter(torch.ones(1, dtype=torch.complex64).expand(3))
    optimizer = ours(name, [first, second], lr=0.1)
    first.grad, second.grad = torch.ones_like(first), torch.ones(3, dtype=torch.complex64)
    with nothing_written(first, second, optimizer=optimizer), pytest.raises(RuntimeError):
        optimizer.step()


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_fused_refuses_a_second_complex_parameter(name: str) -> None:
    first, second = Parameter(torch.ones(3)), Parameter(torch.ones(3, dtype=torch.complex64))
    odd = Parameter(torch.ones(3))
    optimizer = ours(name, [odd, first, second], lr=0.1, fused=True)
    for parameter in (first, second, odd):
        parameter.grad = torch.ones_like(parameter)
    odd.grad = torch._neg_view(torch.ones(3))
    with nothing_written(first, second, odd, optimizer=optimizer), pytest.raises(RuntimeError):
        optimizer.step()
