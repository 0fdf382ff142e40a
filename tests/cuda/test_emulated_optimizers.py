"""`gdcore.optim` over emulated launches: groups and state as torch keeps them, right counts."""

import contextlib
from typing import Any

import pytest
import torch

from ..api.optimizers import FULL, NAMES, advance, everything, held, ours, theirs
from .emulator import Emulator


def stepped(name: str, count: int, steps: int) -> torch.optim.Optimizer:
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(5, generator=generator)) for _ in range(count)]
    optimizer = ours(name, parameters, **FULL[name])
    for _ in range(steps):
        for p in parameters:
            p.grad = torch.randn(5, generator=generator)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("name", NAMES)
def test_one_launch_of_the_cpu_s_bits(emulated: Emulator, name: str) -> None:
    wanted = stepped(name, 100, 3)
    with emulated.device():
        found = stepped(name, 100, 3)
        assert emulated.launches() == 3  # one a step
    for mine, other in zip(everything(found), everything(wanted), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_launch_is_no_step(emulated: Emulator, name: str) -> None:
    with emulated.device() as fail:
        optimizer = stepped(name, 3, 2)
        before = [tensor.clone() for tensor in everything(optimizer)]
        fail(True)
        with pytest.raises(RuntimeError, match="a launch that failed"):
            optimizer.step()
    for now, then in zip(everything(optimizer), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("name", NAMES)
def test_a_launch_for_each_dtype_on_each_device(emulated: Emulator, name: str) -> None:
    """In whatever order the tensors come; those of two dimensions are on a second device."""

    def many() -> torch.optim.Optimizer:
        generator = torch.Generator().manual_seed(0)
        made = []
        for i in range(24):
            values = torch.randn((2, 3) if i % 4 > 1 else 5, generator=generator)
            made.append(torch.nn.Parameter(values.to(torch.float64 if i % 2 else torch.float32)))
        optimizer = ours(name, made, **FULL[name])
        advance(optimizer, range(2))
        return optimizer

    wanted = many()
    with emulated.device():
        found = many()
        assert emulated.launches() == 2 * 4
    for mine, other in zip(everything(found), everything(wanted), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_first_step_is_not_captured(emulated: Emulator, name: str) -> None:
    """A graph would make it again and again; SGD's later ones, which count nothing, are."""
    refused = "momentum_buffer" if name == "SGD" else "capturable"
    with emulated.device(captures=True):
        parameter = torch.nn.Parameter(torch.ones(5))
        optimizer = ours(name, [parameter], **FULL[name])
        parameter.grad = torch.ones(5)
        with pytest.raises(RuntimeError, match=f"^{refused}: expected"):
            optimizer.step()
    assert torch.equal(parameter, torch.ones(5))
    assert not optimizer.state
    with emulated.device():
        optimizer.step()
    before = parameter.detach().clone()
    with emulated.device(captures=True):
        if name == "SGD":
            optimizer.step()
            assert not torch.equal(parameter, before)
            ours(name, [parameter], lr=0.1).step()  # without momentum there is no first step
        else:
            with pytest.raises(RuntimeError, match=r"^capturable: expected"):
                optimizer.step()


COUNTED = [name for name in NAMES if name != "SGD"]


def on_device(optimizer: torch.optim.Optimizer) -> None:
    """Counts and rates of one dimension, which the emulator takes for a device's."""
    for values in optimizer.state.values():
        if "step" in values:
            values["step"] = values["step"].reshape(1)
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
        if isinstance(group["lr"], torch.Tensor):
            group["lr"] = group["lr"].reshape(1)


@pytest.mark.parametrize("rate", ["number", "float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_counts_and_rates_of_the_device(emulated: Emulator, name: str, rate: str) -> None:
    """The CPU's bits, of captured steps too, and a launch more for the counts."""
    options = {**FULL[name]}
    if rate != "number":
        options["lr"] = torch.tensor(options["lr"], dtype=getattr(torch, rate))
    made = []
    for pretended in (True, False):
        sizes = [0 if i % 9 == 0 else 5 for i in range(500)]
        parameters = [torch.nn.Parameter(torch.linspace(1, 2, n)) for n in sizes]
        optimizer = ours(name, parameters, **options)
        advance(optimizer, range(1))
        if pretended:
            on_device(optimizer)
        with emulated.device(captures=True) if pretended else contextlib.nullcontext():
            for step in range(1, 4):
                advance(optimizer, range(step, step + 1))
                if name in COUNTED and pretended:
                    assert emulated.launches() == 2 * 2
        made.append(optimizer)
    for mine, other in zip(everything(made[0]), everything(made[1]), strict=True):
        assert torch.equal(mine.reshape(other.shape), other)


@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "unscaled"])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_an_overflow_is_read_on_the_device(emulated: Emulator, name: str, scaled: bool) -> None:
    """As a GradScaler leaves it to ``fused=True``: nothing moves, not the count either."""
    made: list[Any] = []
    for pretended in (True, False):
        parameters = [torch.nn.Parameter(torch.linspace(1, 2, n)) for n in (5, 0, 4100)]
        optimizer: Any = ours(name, parameters, **FULL[name])
        advance(optimizer, range(1))
        made.append(optimizer)
        if not pretended:
            advance(optimizer, range(1, 3))
            continue
        on_device(optimizer)
        for group in optimizer.param_groups:
            group["fused"] = True
        for step, overflow in ((7, 1.0), (1, 0.0), (8, 2.0), (2, 0.0)):
            optimizer.found_inf = torch.tensor([overflow])
            optimizer.grad_scale = torch.tensor(4.0) if scaled else None
            before = [tensor.clone() for tensor in everything(optimizer)]
            give(optimizer, step, 4.0 if scaled else 1.0)
            grads = [p.grad.clone() for p in parameters if p.grad is not None]
            with emulated.device(captures=True):
                optimizer.step()
                assert emulated.launches() == (1 if name == "SGD" else 2)
            if overflow:
                assert all(map(torch.equal, before, everything(optimizer)))
            kept = 1.0 if overflow or not scaled else 0.25
            for p, grad in zip(parameters, grads, strict=True):
                assert p.grad is not None
                assert torch.equal(p.grad, kept * grad)
    for mine, other in zip(everything(made[0]), everything(made[1]), strict=True):
        assert torch.equal(mine.reshape(other.shape), other)


def give(optimizer: torch.optim.Optimizer, step: int, scale: float) -> None:
    """The gradients of `advance`, times a power of two."""
    for i, p in enumerate(held(optimizer)):
        generator = torch.Generator().manual_seed(100 * step + i)
        grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        p.grad = grad.to(p.dtype) * scale


@pytest.mark.parametrize("name", COUNTED)
def test_a_failed_launch_counts_nothing(emulated: Emulator, name: str) -> None:
    optimizer = stepped(name, 3, 2)
    on_device(optimizer)
    before = [tensor.clone() for tensor in everything(optimizer)]
    with emulated.device() as fail:
        fail(True)
        with pytest.raises(RuntimeError, match="a launch that failed"):
            optimizer.step()
    for now, then in zip(everything(optimizer), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("name", COUNTED)
def test_states_are_made_before_a_capture(emulated: Emulator, name: str) -> None:
    """A graph would set them to zero each time."""
    parameter = torch.nn.Parameter(torch.ones(5))
    optimizer = ours(name, [parameter], capturable=True)
    parameter.grad = torch.ones(5)
    state = "square_avg" if name == "RMSprop" else "exp_avg"
    with (
        emulated.device(captures=True),
        pytest.raises(RuntimeError, match=f"^{state}: expected one, as the step is being captured"),
    ):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.parametrize("name", NAMES)
def test_parameters_with_gaps(emulated: Emulator, name: str) -> None:
    """Are torch's to update from the first step on, beside others that are not."""
    results = []
    for make in (ours, theirs):
        memory = torch.ones(6, 8)
        parameters = [torch.nn.Parameter(memory[::2, 1::3]), torch.nn.Parameter(torch.ones(5))]
        optimizer = make(name, parameters, **FULL[name])
        with emulated.device() if make is ours else contextlib.nullcontext():
            advance(optimizer, range(3))
        results.append(everything(optimizer))
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other)
