"""gdcore.optim.SGD has the numbers of torch.optim.SGD, for every option, over many steps."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import gdcore

from .rounding import assert_within_rounding

pytestmark = pytest.mark.usefixtures("device_of_updates")

STEPS = 6
# Three roundings (the constant's conversion, product, sum) for each of weight decay, momentum,
# Nesterov and the rate.
ROUNDINGS_PER_STEP = 12

OPTIONS = [
    {
        "momentum": momentum,
        "dampening": dampening,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
        "maximize": maximize,
    }
    for momentum, dampening, weight_decay, nesterov, maximize in itertools.product(
        (0.0, 0.9), (0.0, 0.3), (0.0, 0.1), (False, True), (False, True)
    )
    if not nesterov or (momentum > 0 and dampening == 0)
]


def name(options: dict[str, Any]) -> str:
    return "-".join(
        key if value is True else f"{key}={value}" for key, value in options.items() if value
    )


def shapes(dtype: torch.dtype) -> list[Tensor]:
    """Values in every shape and layout that a parameter comes in."""
    return [
        torch.randn((), dtype=dtype),
        torch.randn(1, dtype=dtype),
        torch.randn(0, dtype=dtype),
        torch.randn(33, dtype=dtype),
        torch.randn(4, 5, dtype=dtype),
        torch.randn(5, 4, dtype=dtype).t(),
        torch.randn(6, 8, dtype=dtype)[::2, 1::3],
        torch.randn(2, 3, 4, 5, dtype=dtype).contiguous(memory_format=torch.channels_last),
    ]


def copies(values: Sequence[Tensor]) -> list[Parameter]:
    """Parameters with the values' own strides."""
    return [Parameter(v.new_empty_strided(v.shape, v.stride()).copy_(v)) for v in values]


class Magnitudes:
    """The update over absolute values: what a difference of roundings is measured against."""

    def __init__(self, values: Sequence[Tensor]) -> None:
        self.parameters = [v.double().abs() for v in values]
        self.buffers: list[Tensor | None] = [None] * len(values)

    def step(self, grads: Sequence[Tensor | None], lr: float, **options: Any) -> None:
        options.pop("maximize", None)
        for i, grad in enumerate(grads):
            if grad is not None:
                self.parameters[i], self.buffers[i] = gdcore.reference.sgd_update(
                    self.parameters[i], grad.double().abs(), self.buffers[i], lr=-lr, **options
                )


def give(parameters: Sequence[Parameter], grads: Sequence[Tensor | None]) -> None:
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = None if grad is None else grad.clone()


def assert_same_numbers(
    actual: Sequence[Parameter], expected: Sequence[Parameter], magnitudes: Magnitudes, steps: int
) -> None:
    rows = zip(actual, expected, magnitudes.parameters, strict=True)
    for i, (a, e, magnitude) in enumerate(rows):
        assert_within_rounding(a, e, magnitude, ROUNDINGS_PER_STEP * steps, f"parameter {i}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_every_option(options: dict[str, Any], dtype: torch.dtype) -> None:
    values = shapes(dtype)
    ours, theirs, magnitudes = copies(values), copies(values), Magnitudes(values)
    fused = gdcore.optim.SGD(ours, lr=0.05, **options)
    plain = torch.optim.SGD(theirs, lr=0.05, foreach=False, **options)
    for step in range(1, STEPS + 1):
        grads = [torch.randn_like(v) for v in values]
        give(ours, grads)
        give(theirs, grads)
        fused.step()
        plain.step()
        magnitudes.step(grads, lr=0.05, **options)
        assert_same_numbers(ours, theirs, magnitudes, step)
    assert all(not torch.equal(p, v) for p, v in zip(ours, values, strict=True) if v.numel())
    for i, (a, e) in enumerate(zip(ours, theirs, strict=True)):
        assert fused.state[a].keys() == plain.state[e].keys()
        for key in plain.state[e]:
            assert key == "momentum_buffer"
            magnitude = magnitudes.buffers[i]
            assert magnitude is not None
            roundings = ROUNDINGS_PER_STEP * STEPS
            assert_within_rounding(fused.state[a][key], plain.state[e][key], magnitude, roundings)


def test_first_step_of_each_option_by_hand() -> None:
    """p = 2, g = 3, lr = 0.5, exact in binary; so are the sums."""
    for options, expected in (
        ({}, 0.5),
        ({"maximize": True}, 3.5),
        ({"weight_decay": 0.5}, 0.0),
        ({"momentum": 0.5}, 0.5),
        ({"momentum": 0.5, "dampening": 0.5}, 0.5),
        ({"momentum": 0.5, "nesterov": True}, -0.25),
    ):
        parameter = Parameter(torch.tensor([2.0]))
        parameter.grad = torch.tensor([3.0])
        gdcore.optim.SGD([parameter], lr=0.5, **options).step()
        assert parameter.item() == expected, options


def test_groups_with_options_of_their_own() -> None:
    values = [torch.randn(7, dtype=torch.float64) for _ in range(3)]
    settings: list[dict[str, Any]] = [
        {"lr": 0.1},
        {"lr": 0.01, "momentum": 0.9, "nesterov": True},
        {"lr": 0.2, "weight_decay": 0.1, "maximize": True},
    ]

    def groups(parameters: list[Parameter]) -> list[dict[str, Any]]:
        return [{"params": [p], **s} for p, s in zip(parameters, settings, strict=True)]

    ours, theirs = copies(values), copies(values)
    magnitudes = [Magnitudes([v]) for v in values]
    fused = gdcore.optim.SGD(groups(ours), lr=1.0)
    plain = torch.optim.SGD(groups(theirs), lr=1.0, foreach=False)
    for step in range(1, STEPS + 1):
        grads = [torch.randn_like(v) for v in values]
        give(ours, grads)
        give(theirs, grads)
        fused.step()
        plain.step()
        for i, setting in enumerate(settings):
            magnitudes[i].step([grads[i]], **setting)
            assert_same_numbers(ours[i : i + 1], theirs[i : i + 1], magnitudes[i], step)


def lone_step(parameters: list[Parameter], step: int) -> list[Tensor | None]:
    """Gradients of which the second is missing at odd steps and the third after step 2."""
    grads: list[Tensor | None] = [torch.randn_like(p) for p in parameters]
    if step % 2:
        grads[1] = None
    if step > 2:
        grads[2] = None
        parameters[2].requires_grad_(False)
    return grads


def test_parameters_without_grad_and_frozen_midway() -> None:
    values = [torch.randn(5, dtype=torch.float64) for _ in range(3)]
    options: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.1}
    ours, theirs, magnitudes = copies(values), copies(values), Magnitudes(values)
    fused = gdcore.optim.SGD(ours, lr=0.1, **options)
    plain = torch.optim.SGD(theirs, lr=0.1, foreach=False, **options)
    for step in range(STEPS):
        grads = lone_step(ours, step)
        give(ours, grads)
        give(theirs, grads)
        frozen = ours[2].detach().clone()
        fused.step()
        plain.step()
        magnitudes.step(grads, lr=0.1, **options)
        assert_same_numbers(ours, theirs, magnitudes, step + 1)
        assert torch.equal(frozen, ours[2]) == (step > 2)


def test_without_any_gradient_nothing_happens() -> None:
    parameter = Parameter(torch.ones(3))
    optimizer = gdcore.optim.SGD([parameter], lr=0.1, momentum=0.9, weight_decay=0.1)
    optimizer.step()
    assert parameter.tolist() == [1.0, 1.0, 1.0]
    assert parameter._version == 0


@pytest.mark.parametrize("lr", [torch.tensor(0.1), torch.tensor([0.1], dtype=torch.float64)])
def test_learning_rate_as_a_tensor(lr: Tensor) -> None:
    value = torch.randn(9)
    ours, theirs, magnitudes = copies([value]), copies([value]), Magnitudes([value])
    fused = gdcore.optim.SGD(ours, lr=lr.clone(), momentum=0.9)
    plain = torch.optim.SGD(theirs, lr=lr.clone(), momentum=0.9, foreach=False)
    for step in range(1, STEPS + 1):
        grad = torch.randn_like(value)
        for parameters, optimizer in ((ours, fused), (theirs, plain)):
            give(parameters, [grad])
            optimizer.step()
            optimizer.param_groups[0]["lr"].mul_(0.5)
        magnitudes.step([grad], lr=0.1 * 0.5 ** (step - 1), momentum=0.9)
        assert_same_numbers(ours, theirs, magnitudes, step)


GRADS: dict[str, Callable[[], Tensor]] = {
    "expanded": lambda: torch.randn(1).expand(6),
    "strided": lambda: torch.randn(18)[::3],
    "negated lazily": lambda: torch.complex(torch.zeros(6), torch.randn(6)).conj().imag,
}


@pytest.mark.parametrize("kind", GRADS)
def test_gradients_in_every_layout(kind: str) -> None:
    grad = GRADS[kind]()
    parameters = [Parameter(torch.ones(6)), Parameter(torch.ones(6))]
    parameters[0].grad, parameters[1].grad = grad, grad.clone().contiguous()
    for parameter in parameters:
        gdcore.optim.SGD([parameter], lr=0.5).step()
    assert torch.equal(*parameters)
    assert_within_rounding(parameters[0], 1.0 - 0.5 * grad, 1.0 + 0.5 * grad.abs(), 3)


def test_a_mixture_of_dtypes_in_one_group() -> None:
    values = [torch.randn(5), torch.randn(5, dtype=torch.float64)]
    ours, theirs, magnitudes = copies(values), copies(values), Magnitudes(values)
    optimizers = (
        gdcore.optim.SGD(ours, lr=0.1, momentum=0.9),
        torch.optim.SGD(theirs, lr=0.1, momentum=0.9, foreach=False),
    )
    for step in range(1, STEPS + 1):
        grads = [torch.randn_like(v) for v in values]
        give(ours, grads)
        give(theirs, grads)
        for optimizer in optimizers:
            optimizer.step()
        magnitudes.step(grads, lr=0.1, momentum=0.9)
        assert_same_numbers(ours, theirs, magnitudes, step)


def test_a_rate_below_zero_set_by_hand_ascends_as_in_torch() -> None:
    parameters = [Parameter(torch.tensor([2.0])), Parameter(torch.tensor([2.0]))]
    for parameter, kind in zip(parameters, (gdcore.optim.SGD, torch.optim.SGD), strict=True):
        parameter.grad = torch.tensor([3.0])
        optimizer = kind([parameter], lr=1.0)
        optimizer.param_groups[0]["lr"] = -0.5
        optimizer.step()
        assert parameter.item() == 3.5
