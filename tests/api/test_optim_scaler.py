"""Optimizers with fused=True under a GradScaler, which leaves unscaling to them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import gdcore

from ..devices import UPDATES_ON_CPU
from .optimizers import FULL, everything, ours, theirs
from .refusal import nothing_written

pytestmark = pytest.mark.usefixtures("device_of_updates")

FUSED = ("SGD", "Adam", "AdamW")
each = pytest.mark.parametrize("name", FUSED)
dtypes = pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
SCALE = 1024.0


def scaler_of(scale: float) -> torch.amp.GradScaler:
    scaler = torch.amp.GradScaler(torch.get_default_device().type, init_scale=scale)
    scaler.scale(torch.ones(()))
    return scaler


def scaled_step(optimizer: torch.optim.Optimizer, grad: Tensor) -> None:
    (parameter,) = optimizer.param_groups[0]["params"]
    scaler = scaler_of(SCALE)
    parameter.grad = grad.clone()
    scaler.step(optimizer)
    scaler.update()


@each
@dtypes
def test_unscaled_and_stepped(name: str, dtype: torch.dtype) -> None:
    """The numbers of a step in float32 (float64), rounded; gradients are left unscaled."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(4, 33, generator=generator, dtype=torch.float64, device="cpu")
    start, *grads = drawn.to(torch.get_default_device())
    parameter = Parameter(start.to(dtype))
    optimizer = ours(name, [parameter], **FULL[name], fused=True)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    unit = torch.finfo(dtype).eps
    for grad in grads:
        other = Parameter(parameter.detach().to(wide, copy=True))
        plain = theirs(name, [other], **FULL[name])
        for key, value in optimizer.state.get(parameter, {}).items():
            plain.state[other][key] = value.to(value.dtype if key == "step" else wide, copy=True)
        scaled = (grad * SCALE).to(dtype)
        other.grad = scaled.to(wide) / SCALE
        scaled_step(optimizer, scaled)
        plain.step()
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, other.grad.to(dtype), rtol=0, atol=0)
        for actual, expected in zip(everything(optimizer), everything(plain), strict=True):
            torch.testing.assert_close(
                actual.to(expected), expected, rtol=unit, atol=64 * torch.finfo(wide).eps
            )


@each
@dtypes
@pytest.mark.parametrize("first", [True, False], ids=["first step", "later step"])
def test_an_overflow_moves_nothing(name: str, dtype: torch.dtype, first: bool) -> None:
    parameter = Parameter(torch.linspace(-1, 1, 33).to(dtype))
    optimizer = ours(name, [parameter], **FULL[name], fused=True)
    if not first:
        scaled_step(optimizer, torch.ones(33, dtype=dtype))
    before = [t.detach().clone() for t in everything(optimizer)]
    bad = torch.ones(33, dtype=dtype)
    bad[7] = float("inf")
    scaled_step(optimizer, bad)
    after = everything(optimizer)
    assert len(after) == len(before)
    assert all(map(torch.equal, before, after))


@each
def test_small_gradients_in_float16_are_not_lost(name: str) -> None:
    """Divided by the scale they are below float16's smallest number."""
    parameter = Parameter(torch.zeros(5, dtype=torch.float16))
    rate = {"SGD": 2.0**26, "Adam": 1.0, "AdamW": 1.0}[name]
    options = {} if name == "SGD" else {"eps": 0.0}
    optimizer = ours(name, [parameter], lr=rate, fused=True, **options)
    scaler = scaler_of(2.0**16)
    parameter.grad = torch.full((5,), 2.0**-10, dtype=torch.float16)
    scaler.step(optimizer)
    assert parameter.tolist() == [-1.0] * 5


@UPDATES_ON_CPU
@each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_gradients_in_float32_are_unscaled_once(name: str, dtype: torch.dtype) -> None:
    parameter = Parameter(torch.zeros(5, dtype=dtype))
    parameter.grad_dtype = torch.float32
    optimizer: Any = ours(name, [parameter], **{**FULL[name], "lr": 1.0}, fused=True)
    other = Parameter(torch.zeros(5))
    plain = theirs(name, [other], **{**FULL[name], "lr": 1.0})
    parameter.grad, other.grad = torch.full((5,), 16.0), torch.full((5,), 4.0)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(0.0)
    optimizer.step()
    plain.step()
    assert torch.equal(parameter.grad, other.grad)
    torch.testing.assert_close(parameter.detach(), other.detach().to(dtype))


@each
def test_float16_trains_as_in_torch(name: str) -> None:
    results = []
    for library in (gdcore.optim, torch.optim):
        parameter = Parameter(torch.ones(3, dtype=torch.float16))
        optimizer = getattr(library, name)([parameter], lr=0.5, fused=True)
        scaler = scaler_of(4.0)
        scaler.scale((parameter * parameter).sum()).backward()
        scaler.step(optimizer)
        results.append((parameter.tolist(), parameter.grad))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("name", [*FUSED, "RMSprop"])
def test_without_fused_float16_is_refused_as_in_torch(name: str) -> None:
    parameter = Parameter(torch.ones(3, dtype=torch.float16))
    optimizer = ours(name, [parameter], lr=0.5)
    with pytest.raises(ValueError, match="unscale FP16"):
        scaled_step(optimizer, torch.ones(3, dtype=torch.float16))
    assert parameter.tolist() == [1.0] * 3


@UPDATES_ON_CPU  # elsewhere what has gaps is torch's, and not rehearsed
@each
def test_what_is_refused_leaves_gradients_scaled(name: str) -> None:
    good, half, bad = (Parameter(torch.ones(3, dtype=d)) for d in (None, torch.float16, None))
    optimizer: Any = ours(name, [good, half, bad], lr=0.5, fused=True)
    for parameter in (good, half, bad):
        parameter.grad = torch.ones_like(parameter)
    bad.data = torch.ones(1).expand(3)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(0.0)
    with (
        nothing_written(good, half, bad, optimizer=optimizer),
        pytest.raises(RuntimeError, match="parameter: expected"),
    ):
        optimizer.step()


@each
def test_groups_of_which_one_is_not_fused_are_refused(name: str) -> None:
    first, second = Parameter(torch.ones(3)), Parameter(torch.ones(3))
    optimizer: Any = ours(name, [{"params": [first]}, {"params": [second]}], lr=0.5, fused=True)
    optimizer.param_groups[1]["fused"] = False
    first.grad, second.grad = torch.ones(3), torch.ones(3)
    optimizer.found_inf = torch.tensor(0.0)
    with (
        nothing_written(first, second, optimizer=optimizer),
        pytest.raises(AssertionError, match="found_inf: expected None"),
    ):
        optimizer.step()
