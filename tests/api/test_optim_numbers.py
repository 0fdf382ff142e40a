"""Every optimizer and its namesake are both within what rounding allows, of the same exact steps.

optimizer_bounds.py derives the bounds from torch's single-tensor formulas. The options are those
that PyTorch's own tests use, and all combinations of the ones that interact.
"""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from ..devices import UPDATES_NOT_EMULATED
from ..kernels.rounding import check
from ..optimizer_bounds import gradients, steps_of
from .optimizers import MAKERS, NAMES, copies

pytest.importorskip("expecttest", reason="torch's own cases need the test extra")

from torch.testing._internal.common_optimizers import optim_db

pytestmark = [pytest.mark.usefixtures("device_of_updates"), UPDATES_NOT_EMULATED]

STEPS = 5
Case = tuple[str, dict[str, Any]]


def from_torch() -> list[Case]:
    """PyTorch's descriptions of what each optimizer must handle."""
    return [
        (info.optim_cls.__name__, dict(inputs.kwargs))
        for info in optim_db
        if info.optim_cls.__name__ in NAMES
        for inputs in info.optim_inputs_func(device="cpu")
    ]


def combined() -> list[Case]:
    cases: list[Case] = []
    for weight_decay, maximize in itertools.product((0.0, 0.1), (False, True)):
        common = {"weight_decay": weight_decay, "maximize": maximize}
        for momentum, centered in itertools.product((0.0, 0.9), (False, True)):
            own = {"momentum": momentum, "centered": centered, "eps": 1e-3, "alpha": 0.8}
            cases.append(("RMSprop", {**common, **own}))
        for name, amsgrad in itertools.product(("Adam", "AdamW"), (False, True)):
            cases.append((name, {**common, "amsgrad": amsgrad, "betas": (0.4, 0.6), "lr": 0.1}))
    return cases


CASES = [*from_torch(), *combined()]


def label(case: Case) -> str:
    name, options = case
    return "-".join([name, *(f"{key}={value}" for key, value in options.items() if value)])


def values(dtype: torch.dtype) -> list[Tensor]:
    """In every shape and layout that a parameter comes in."""
    return [
        torch.randn((), dtype=dtype),
        torch.randn(0, dtype=dtype),
        torch.randn(33, dtype=dtype),
        torch.randn(5, 4, dtype=dtype).t(),
        torch.randn(6, 8, dtype=dtype)[::2, 1::3],
        torch.randn(2, 3, 4, 5, dtype=dtype).contiguous(memory_format=torch.channels_last),
    ]


def test_there_are_cases_for_each() -> None:
    names = [name for name, _ in from_torch()]
    assert set(names) == set(NAMES)
    assert all(names.count(name) >= 5 for name in NAMES)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=label)
def test_within_rounding(case: Case, dtype: torch.dtype, maker: str) -> None:
    name, options = case
    starts = values(dtype)
    parameters = copies(starts)
    optimizer = MAKERS[maker](name, parameters, **options)
    grads = [gradients(STEPS, start, seed=i) for i, start in enumerate(starts)]
    bounds = [steps_of(name, *pair, **options) for pair in zip(starts, grads, strict=True)]
    for step in range(STEPS):
        for parameter, own in zip(parameters, grads, strict=True):
            parameter.grad = own[step].clone()
        optimizer.step()
        for i, parameter in enumerate(parameters):
            state = {k: v for k, v in optimizer.state[parameter].items() if k != "step"}
            assert {"parameter", *state} == bounds[i][step].keys()
            for key, value in {"parameter": parameter, **state}.items():
                check(value, bounds[i][step][key], f"{key} of parameter {i}, step {step}")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rate", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("maker", MAKERS)
def test_tensor_rates_of_either_dtype(maker: str, rate: torch.dtype, name: str) -> None:
    """In the parameters' own dtype: a float32 rate for float64 is below."""
    start = torch.randn(9, dtype=rate)
    grads = gradients(STEPS, start)
    lr = torch.tensor([0.05], dtype=rate)
    (parameter,) = copies([start])
    optimizer = MAKERS[maker](name, [parameter], lr=lr)
    bounds = steps_of(name, start, grads, lr=lr.item())
    for grad, bound in zip(grads, bounds, strict=True):
        parameter.grad = grad
        optimizer.step()
        slack = bound["parameter"]
        # torch divides the rate by its correction in the rate's own dtype: two roundings more.
        more = 4 * slack.unit * 0.05 * 10
        widened = type(slack)(slack.value, slack.error + more, slack.unit)
        check(parameter, widened, "parameter")


@pytest.mark.parametrize("name", NAMES)
def test_a_float32_rate_of_float64_parameters(name: str) -> None:
    """torch rounds what it computes of such a rate to float32; so do the kernels, to the bit."""
    results = []
    for make in MAKERS.values():
        torch.manual_seed(0)
        parameter = torch.nn.Parameter(torch.randn(9, dtype=torch.float64))
        optimizer = make(name, [parameter], lr=torch.tensor(0.3))
        for grad in gradients(STEPS, parameter):
            parameter.grad = grad
            optimizer.step()
        results.append(parameter.detach())
    distance = (results[0] - results[1]).abs().max()
    assert distance < 1e-13  # were it not so rounded, about 1e-8


TINY: list[dict[str, Any]] = [
    {"weight_decay": 1e-300},
    {"momentum": 1e-50},
    {"momentum": 1e-50, "dampening": 0.5},
    {"momentum": 1e-50, "nesterov": True},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", TINY, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_float32_rounds_to_zero(
    name: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    """The term is there all the same, 0 · ∞ included, and so is the buffer."""
    if not options.keys() <= getattr(torch.optim, name)([torch.zeros(1)]).defaults.keys():
        pytest.skip("not a setting of this optimizer")
    value = torch.linspace(-1.0, 1.0, 1003, dtype=dtype)
    value[::5] = torch.inf
    results = []
    for make in MAKERS.values():
        (parameter,) = copies([value])
        optimizer = make(name, [parameter], lr=0.1, **options)
        for step in range(3):
            junk = [torch.full_like(value, torch.nan) for _ in range(20)]
            del junk  # so that memory that is not written holds something
            parameter.grad = torch.linspace(1.0, 2.0 + step, 1003, dtype=dtype)
            optimizer.step()
        results.append([parameter.detach(), *optimizer.state[parameter].values()])
    for actual, expected in zip(*results, strict=True):
        # Three steps of a dozen roundings of numbers around 1.
        tolerance = 36 * torch.finfo(dtype).eps
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
