"""bfloat16 and float16: to the bit what the float32 kernel gives for the same values, rounded once.

The float32 kernels have bounds of their own. torch's conversions are the measure of rounding, over
every value that a half type has.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from ..devices import CUDA
from ..optimizer_bounds import gradients
from . import native_step
from .sizes import LANES
from .test_updates import start

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
SIZES = [0, 1, 7, 15, 16, 17, 32, 33, 2 * LANES[torch.float32] + 1, 1000]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "maximize": True}),
    ("SGD", {"momentum": 0.9, "dampening": 0.4}),
    ("RMSprop", {"weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.9, "centered": True, "maximize": True}),
    ("Adam", {"weight_decay": 0.1, "amsgrad": True}),
    ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
]


def same(a: Tensor, b: Tensor) -> bool:
    """The same bits, but that one NaN is as good as another."""
    bits = torch.int16
    return bool(((a.view(bits) == b.view(bits)) | (a.isnan() & b.isnan())).all())


def in_float32(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.to(torch.float32, copy=True) for key, value in state.items()}


@pytest.mark.parametrize("half", HALF.values(), ids=HALF)
@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
@pytest.mark.usefixtures("instruction_set")
def test_rounded_once(kind: str, options: dict[str, Any], half: torch.dtype) -> None:
    for n in SIZES:
        p = start(half, n)
        state = native_step.zeros(kind, options, p)
        if kind == "SGD" and options.get("momentum"):
            state["momentum_buffer"] = start(half, n)
        for grad in gradients(4, p):
            before = p.clone()
            exact, exact_state = p.float(), in_float32(state)
            native_step.step(kind, [exact], [grad.float()], [exact_state], lr=0.1, **options)
            native_step.step(kind, [p], [grad], [state], lr=0.1, **options)
            assert same(p, exact.to(half)), f"{n} elements"
            assert n == 0 or not same(p, before)
            for key, value in state.items():
                if key != "step":
                    assert same(value, exact_state[key].to(half)), f"{key}, {n} elements"


@pytest.mark.parametrize("half", HALF.values(), ids=HALF)
@pytest.mark.usefixtures("instruction_set")
def test_every_value_is_read_and_written(half: torch.dtype) -> None:
    """p - 0 · 0 is p, whatever p is; each value is in every lane, and among the last few."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(half)
    for shift in range(LANES[torch.float32]):
        p = torch.cat([values[-shift:], values]).clone() if shift else values.clone()
        before = p.clone()
        native_step.step("SGD", [p], [torch.zeros_like(p)], [{}], lr=0.0)
        assert same(p, before)
    ones = values.clone()
    for p in ones[:2000].split(1):  # one element: the loop over what is left
        native_step.step("SGD", [p.detach()], [torch.zeros(1, dtype=half)], [{}], lr=0.0)
    assert same(ones, values)


@pytest.mark.parametrize("half", HALF.values(), ids=HALF)
@pytest.mark.usefixtures("instruction_set")
def test_every_size_of_number_is_rounded(half: torch.dtype) -> None:
    """Sums of arbitrary halves: subnormal, tied, overflowing, infinite and not a number."""
    sizes_are_rounded(half, torch.device("cpu"))


@pytest.mark.parametrize("half", HALF.values(), ids=HALF)
@pytest.mark.usefixtures("instruction_set")
def test_ties_go_to_even(half: torch.dtype) -> None:
    """Every number and half of the step to the next: p - (-1/2) · step."""
    ties_are_even(half)


@pytest.mark.parametrize("device_of_updates", ["emulated", CUDA], indirect=True)
@pytest.mark.parametrize("half", HALF.values(), ids=HALF)
def test_on_a_device(half: torch.dtype, device_of_updates: torch.device) -> None:
    p = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(half)
    before = p.clone()
    native_step.step("SGD", [p], [torch.zeros_like(p)], [{}], lr=0.0)
    assert same(p, before)
    sizes_are_rounded(half, device_of_updates)
    ties_are_even(half)


def sizes_are_rounded(half: torch.dtype, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    for n in (2**17, 7):

        def bits(n: int = n) -> Tensor:
            random = torch.randint(-(2**15), 2**15, (n,), generator=generator, device="cpu")
            return random.to(torch.int16).view(half).to(device)

        for lr in (-1.0, 0.5, -0.3):
            p, grad = bits(), bits()
            exact = p.float()
            native_step.step("SGD", [exact], [grad.float()], [{}], lr=lr)
            native_step.step("SGD", [p], [grad], [{}], lr=lr)
            assert same(p, exact.to(half)), f"lr={lr}"


def ties_are_even(half: torch.dtype) -> None:
    values = torch.arange(1, 0x7000, dtype=torch.int32)
    p = values.to(torch.int16).view(half)
    step = (values + 1).to(torch.int16).view(half).float() - p.float()
    exact = p.float() + 0.5 * step
    grad = step.to(half)
    representable = grad.float() == step
    native_step.step("SGD", [p], [grad], [{}], lr=-0.5)
    assert representable.sum() > 1000
    even = exact.to(half)
    assert same(p[representable], even[representable])
    assert (even.view(torch.int16)[representable] % 2 == 0).float().mean() > 0.99
