"""rmsprop and adam against exact arithmetic: every option, size and layout, five steps.

optimizer_bounds.py counts the roundings. `gdcore.reference` is held to the same bounds in float64.
"""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from gdcore import reference

from ..optimizer_bounds import BOUNDS, States, gradients, steps_of
from . import native_step
from .layouts import MATRICES, Layout
from .rounding import check
from .sizes import LANES, around_lanes
from .test_sgd import everywhere, random

STEPS = 5
Case = tuple[str, dict[str, Any]]

CASES: list[Case] = []
for weight_decay, maximize, momentum, centered in product(
    (0.0, 0.1), (False, True), (0.0, 0.9), (False, True)
):
    options = {"weight_decay": weight_decay, "maximize": maximize, "momentum": momentum}
    CASES.append(("RMSprop", {**options, "centered": centered, "alpha": 0.7, "eps": 1e-3}))
CASES.append(("RMSprop", {"alpha": 0.3, "centered": True}))  # the other way round of lerp
for weight_decay, maximize, decoupled, amsgrad in product(
    (0.0, 0.1), (False, True), (False, True), (False, True)
):
    options = {"weight_decay": weight_decay, "maximize": maximize, "amsgrad": amsgrad}
    CASES.append(("Adam", {**options, "decoupled_weight_decay": decoupled, "eps": 1e-3}))
CASES.append(("Adam", {"betas": (0.3, 0.4), "amsgrad": True}))


def name(case: Case) -> str:
    kind, options = case
    parts = (key if value is True else f"{key}={value}" for key, value in options.items() if value)
    return "-".join([kind, *parts])


def start(dtype: torch.dtype, *shape: int) -> Tensor:
    return random(dtype, 9, *shape)


def zeros(kind: str, options: dict[str, Any], p: Tensor) -> dict[str, Tensor]:
    """Steps are counted on the CPU, wherever new tensors are."""
    state = native_step.zeros(kind, options, p)
    return {key: value.cpu() if key == "step" else value for key, value in state.items()}


def check_state(p: Tensor, state: dict[str, Tensor], bounds: States, what: str) -> None:
    assert {"parameter", *state} - {"step"} == bounds.keys(), what
    check(p, bounds["parameter"], f"parameter, {what}")
    for key, value in state.items():
        if key != "step":
            check(value, bounds[key], f"{key}, {what}")


def check_steps(
    case: Case, p: Tensor, state: dict[str, Tensor], grads: list[Tensor], what: str
) -> None:
    kind, options = case
    bounds = steps_of(kind, p, grads, lr=0.3, **options)
    for step, grad in enumerate(grads):
        native_step.step(kind, [p], [grad], [state], lr=0.3, **options)
        assert state["step"] == step + 1
        check_state(p, state, bounds[step], f"step {step}, {what}")


@pytest.mark.parametrize("case", CASES, ids=name)
@pytest.mark.usefixtures("device_of_updates", "instruction_set")
@everywhere
def test_sizes(dtype: torch.dtype, case: Case) -> None:
    for n in [0, *around_lanes(dtype)]:
        p = start(dtype, n)
        check_steps(case, p, zeros(*case, p), gradients(STEPS, p), f"{n} elements")


# What can be written: memory in which no two elements are the same.
WRITABLE = {name: layout for name, layout in MATRICES.items() if not name.startswith("one_")}


@pytest.mark.parametrize("layout", WRITABLE.values(), ids=WRITABLE)
@pytest.mark.parametrize("case", [CASES[15], CASES[-2]], ids=name)
@pytest.mark.usefixtures("instruction_set")
def test_layouts(dtype: torch.dtype, case: Case, layout: Layout) -> None:
    value = start(dtype, 5, LANES[dtype] + 3)
    for grad_layout in MATRICES.values():
        grads = [grad_layout(grad) for grad in gradients(STEPS, value)]
        p, dense = layout(value), zeros(*case, value)
        state = {key: t if key == "step" else layout(t) for key, t in dense.items()}
        check_steps(case, p, state, grads, f"gradient {grad_layout.__name__}")
        for key, written in {"parameter": p, **state}.items():
            memory = written if written._base is None else written._base
            gaps = memory.numel() - written.numel()
            assert memory.isnan().sum() == gaps, f"written between the elements of {key}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_reference(case: Case) -> None:
    kind, options = case
    p = start(torch.float64, 5)
    grads = gradients(STEPS, p)
    bounds = steps_of(kind, p, grads, lr=0.3, **options)
    state: dict[str, Tensor] = {}
    for step, grad in enumerate(grads):
        if kind == "Adam":
            p, state = reference.adam_update(p, grad, state, step + 1, lr=0.3, **options)
        else:
            p, state = reference.rmsprop_update(p, grad, state, lr=0.3, **options)
        check_state(p, state, bounds[step], f"step {step}")


def test_every_optimizer_has_bounds() -> None:
    assert {kind for kind, _ in CASES} == BOUNDS.keys() - {"SGD", "AdamW"}


@pytest.mark.parametrize("kind", ["SGD", "RMSprop", "Adam"])
@pytest.mark.usefixtures("device_of_updates", "instruction_set")
@everywhere
def test_a_list_is_each_alone(kind: str) -> None:
    """Tensors of every dtype, several sizes and shapes in one call, with counters of their own."""
    kinds = [(torch.float32, (3, 5)), (torch.float64, (17,)), (torch.bfloat16, ()),
             (torch.float16, (0,)), (torch.float32, (2, 3, 4)), (torch.float16, (33,))]  # fmt: skip
    settings = {"lr": 0.1, "weight_decay": 0.1, **({"momentum": 0.9} if kind != "Adam" else {})}
    results = []
    for alone in (False, True):
        parameters = [start(dtype, *shape) for dtype, shape in kinds]
        grads = [gradients(1, p)[0] for p in parameters]
        states = [zeros(kind, settings, p) for p in parameters]
        for i, state in enumerate(states):
            if kind == "SGD":
                state["momentum_buffer"] = torch.ones_like(parameters[i])
            else:
                state["step"].fill_(i)
        if alone:
            for each in zip(parameters, grads, states, strict=True):
                native_step.step(kind, *([t] for t in each), **settings)
        else:
            native_step.step(kind, parameters, grads, states, **settings)
        results.append([*parameters, *(t for state in states for t in state.values())])
    assert all(map(torch.equal, *results))


@pytest.mark.usefixtures("device_of_updates", "instruction_set")
@everywhere
def test_versions_move_on(dtype: torch.dtype) -> None:
    """Autograd must see that what it saved has been written."""
    p = start(dtype, 5)
    grad, state = gradients(1, p)[0], zeros("Adam", {"amsgrad": True}, p)
    tensors = [p, *state.values(), grad]
    before = [t._version for t in tensors]
    native_step.step("Adam", [p], [grad], [state], lr=0.1, amsgrad=True)
    assert [t._version - b for t, b in zip(tensors, before, strict=True)] == [1, 1, 1, 1, 1, 0]
