"""Half types are computed in float32 and rounded once, whoever makes the step.

torch's fused CPU kernels leave most elements of half types as they are, and its other updates round
at every operation. Neither may show where a step is handed over to torch: a setting of another
kind, a mode that looks on, a compiled step, a subclass.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils.flop_counter import FlopCounterMode

from ..devices import CUDA, UPDATES_ON_CPU
from .optimizers import FULL, NAMES, everything, ours, theirs

pytestmark = pytest.mark.usefixtures("device_of_updates")

each = pytest.mark.parametrize("name", NAMES)
half = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
STEPS = 4


class Watched(torch.Tensor):
    """A subclass, whose operations are torch's to dispatch."""


def set_rate(optimizer: torch.optim.Optimizer, rate: Any) -> None:
    optimizer.param_groups[0]["lr"] = rate


def schedule(optimizer: torch.optim.Optimizer) -> None:
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: np.float32(0.7))


def negative_gradient(optimizer: torch.optim.Optimizer) -> None:
    (parameter,) = optimizer.param_groups[0]["params"]
    parameter.grad = torch._neg_view(-parameter.grad)


def subclass(optimizer: torch.optim.Optimizer) -> None:
    (parameter,) = optimizer.param_groups[0]["params"]
    if type(parameter) is Watched:
        return
    wrapped = parameter.detach().as_subclass(Watched).requires_grad_()
    wrapped.grad = parameter.grad
    optimizer.param_groups[0]["params"] = [wrapped]


def expect_overflow(optimizer: torch.optim.Optimizer) -> None:
    if optimizer.param_groups[0].get("fused"):
        optimizer.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]


def look_on(step: Callable[[], Any]) -> None:
    with FlopCounterMode(display=False):
        step()


def compiled(step: Callable[[], Any]) -> None:
    torch.compile(step, backend="eager")()


SETTINGS: dict[str, Callable[[torch.optim.Optimizer], None]] = {
    "as it is": lambda _: None,
    "a rate of NumPy's": lambda o: set_rate(o, np.float32(0.07)),
    "a narrow rate of NumPy's": lambda o: set_rate(o, np.float16(0.07)),
    "a scheduled rate of NumPy's": schedule,
    "a rate in bfloat16": lambda o: set_rate(o, torch.tensor(0.07, dtype=torch.bfloat16)),
    "a rate in int64": lambda o: set_rate(o, torch.tensor(1)),
    "a negative view as gradient": negative_gradient,
    "a subclass": subclass,
    "a scaler's attribute": expect_overflow,
    "differentiable, set later": lambda o: o.param_groups[0].update(differentiable=True),
}
STEPPING: dict[str, Callable[[Callable[[], Any]], Any]] = {
    "plainly": lambda step: step(),
    "in a mode": look_on,
    "compiled": compiled,
}
WAYS = [(setting, "plainly") for setting in SETTINGS]
WAYS += [("as it is", stepping) for stepping in ("in a mode", "compiled")]
WAYS += [("a rate of NumPy's", "compiled"), ("a subclass", "in a mode")]
NATIVE = [("as it is", "plainly"), ("as it is", "compiled"), ("a rate of NumPy's", "plainly")]


def in_float32(name: str, optimizer: torch.optim.Optimizer, **options: Any) -> list[Tensor]:
    """The parameter and its states after the step that is to come, calculated in float32."""
    (parameter,) = optimizer.param_groups[0]["params"]
    wide = Parameter(parameter.detach().as_subclass(Tensor).float())
    wide.grad = parameter.grad.resolve_neg().float()
    other = theirs(name, [wide], **options)
    other.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"]
    for key, value in optimizer.state.get(parameter, {}).items():
        other.state[wide][key] = value.clone() if key == "step" else value.float()
    other.step()
    return [wide.detach(), *(v for k, v in sorted(other.state[wide].items()) if k != "step")]


def contents(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """A copy of the parameter and of its states."""
    (parameter,) = optimizer.param_groups[0]["params"]
    state = sorted(optimizer.state.get(parameter, {}).items())
    held = [parameter, *(value for key, value in state if key != "step")]
    return [tensor.detach().as_subclass(Tensor).clone() for tensor in held]


def assert_rounded_once(actual: Tensor, exact: Tensor, before: Tensor) -> int:
    """Of a value to within 32 roundings in float32; how many may be either of two.

    Rounding is monotonic: what lies between two values is rounded to between their roundings. What
    a step adds is no larger than what comes out and what there was together.
    """
    slack = 32 * 2.0**-24 * (exact.double().abs() + before.double().abs())
    low, high = ((exact + sign * slack).to(actual.dtype) for sign in (-1, 1))
    assert bool(((low <= actual) & (actual <= high)).all())
    return int((low != high).sum())


def check_rounded_once(
    name: str, setting: str, stepping: str, dtype: torch.dtype, **choice: bool
) -> None:
    torch.compiler.reset()
    generator = torch.Generator().manual_seed(3)
    device = torch.get_default_device()
    start = torch.randn(512, generator=generator, device="cpu")
    parameter = Parameter(start.to(device, dtype))
    optimizer = ours(name, [parameter], **FULL[name], **choice)
    either = total = 0
    for _ in range(STEPS):
        (held,) = optimizer.param_groups[0]["params"]
        # Away from 0, where a centered RMSprop divides by differences that cancel.
        grad = torch.randn(512, generator=generator, device="cpu")
        held.grad = (grad + 0.5 * grad.sign()).to(device, dtype)
        SETTINGS[setting](optimizer)
        (held,) = optimizer.param_groups[0]["params"]
        expected = in_float32(name, optimizer, **FULL[name])
        before = contents(optimizer)
        before += [torch.zeros(512)] * (len(expected) - len(before))
        STEPPING[stepping](optimizer.step)
        for value, exact, old in zip(contents(optimizer), expected, before, strict=True):
            assert value.dtype == dtype
            either += assert_rounded_once(value, exact, old)
            total += value.numel()
        assert (contents(optimizer)[0] != before[0]).sum() > 256
    assert either < 0.05 * total


@UPDATES_ON_CPU  # elsewhere torch's own steps round at every operation
@half
@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize(("setting", "stepping"), WAYS)
@each
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_rounded_once(
    name: str, setting: str, stepping: str, fused: bool | None, dtype: torch.dtype
) -> None:
    if name == "RMSprop" and fused:
        pytest.skip("torch.optim.RMSprop has no fused")
    check_rounded_once(name, setting, stepping, dtype, **({"fused": True} if fused else {}))


@pytest.mark.parametrize("device_of_updates", ["emulated", CUDA], indirect=True)
@half
@pytest.mark.parametrize(("setting", "stepping"), NATIVE)
@each
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_native_steps_round_once(
    name: str, setting: str, stepping: str, dtype: torch.dtype
) -> None:
    check_rounded_once(name, setting, stepping, dtype)


@pytest.mark.parametrize("make", [ours, theirs])
@each
def test_numbers_of_other_kinds(name: str, make: Any) -> None:
    """What torch takes as a number, in each setting, natively: the numbers of torch's own."""
    kinds: list[Callable[[float], Any]] = [
        np.float64,
        np.float32,
        np.float16,
        lambda v: np.int64(round(v)),
        lambda v: torch.tensor(v, dtype=torch.float64, device="cpu"),
        lambda v: torch.tensor(v, dtype=torch.float16, device="cpu"),
        lambda v: torch.tensor(round(v), device="cpu"),
    ]
    for kind in kinds:
        for key in ("lr", "momentum", "weight_decay", "eps", "dampening", "alpha"):
            results = []
            for maker in (make, theirs):
                parameter = Parameter(torch.linspace(-2, 2, 9, dtype=torch.float64))
                optimizer = maker(name, [parameter], **{**FULL[name], "lr": 0.05})
                group = optimizer.param_groups[0]
                if key not in group:
                    break
                group[key] = kind({"lr": 0.3, "eps": 0.01}.get(key, 0.6))
                for grad in (1.0, -0.3, 0.7):
                    parameter.grad = torch.full_like(parameter, grad)
                    optimizer.step()
                results.append([t.detach() for t in everything(optimizer)])
            for actual, expected in zip(*(results or [[], []]), strict=True):
                torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


@each
def test_a_step_with_a_number_of_numpy_s_is_native(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gdcore._optim import torch_step

    monkeypatch.setattr(torch_step, "step", None)
    parameter = Parameter(torch.ones(3))
    optimizer = ours(name, [parameter], **FULL[name])
    for rate in (np.float32(0.1), np.float64(0.1), np.int64(1), torch.tensor(1, device="cpu")):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = torch.ones(3)
        before = parameter.detach().clone()
        optimizer.step()
        assert (parameter != before).all()
