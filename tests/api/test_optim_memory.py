"""Parameters, gradients and states that lie in between one another in memory, and share none."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from ..devices import UPDATES_ON_CPU
from .optimizers import FULL, MAKERS, NAMES, close, everything, ours
from .refusal import nothing_written, refused

pytestmark = pytest.mark.usefixtures("device_of_updates")

each = pytest.mark.parametrize("name", NAMES)


def columns() -> tuple[Tensor, Tensor]:
    both = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(5, 2)
    return both[:, 0], both[:, 1]


def interleaved_strides() -> tuple[Tensor, Tensor]:
    """Offsets 0, 3, 2, 5, 4, 7: neither dimension steps past all that the other reaches."""
    memory = torch.linspace(-1, 1, 16, dtype=torch.float64)
    return memory.as_strided((3, 2), (2, 3)), memory.as_strided((3, 2), (2, 3), 8)


def halves_of_rows() -> tuple[Tensor, Tensor]:
    both = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(3, 8)
    return both[:, :4].t(), both[:, 4:].t()


LAYOUTS: list[Callable[[], tuple[Tensor, Tensor]]] = [columns, interleaved_strides, halves_of_rows]
layouts = pytest.mark.parametrize("layout", LAYOUTS)


@each
@layouts
def test_a_parameter_between_the_elements_of_its_gradient(name: str, layout: Any) -> None:
    results = []
    for make in MAKERS.values():
        value, grad = layout()
        parameter = Parameter(value)
        parameter.grad = grad
        optimizer = make(name, [parameter], **FULL[name])
        for _ in range(3):
            optimizer.step()
        results.append([*everything(optimizer), grad])
    close(*results)


@each
@layouts
def test_a_state_between_the_elements_of_its_parameter(name: str, layout: Any) -> None:
    results = []
    for make in MAKERS.values():
        value, other = layout()
        parameter = Parameter(value)
        parameter.grad = torch.linspace(1, 2, value.numel(), dtype=torch.float64).view(value.shape)
        optimizer = make(name, [parameter], **FULL[name])
        optimizer.step()
        state = optimizer.state[parameter]
        key = next(key for key in state if key != "step")
        state[key] = other.copy_(state[key])
        for _ in range(2):
            optimizer.step()
        assert state[key] is other
        results.append(everything(optimizer))
    close(*results)


@UPDATES_ON_CPU  # elsewhere what has gaps is torch's
@each
@pytest.mark.parametrize("offset", [1, 2, 7])
def test_one_element_in_common_is_refused(name: str, offset: int) -> None:
    memory = torch.ones(20, dtype=torch.float64)
    parameter = Parameter(memory[:8:2])
    parameter.grad = grad = memory[offset : offset + 12 : 3]  # of 0, 2, 4, 6 it meets one
    meet = set(range(0, 8, 2)) & set(range(offset, offset + 12, 3))
    optimizer = ours(name, [parameter], lr=0.1)
    if not meet:
        optimizer.step()
        return
    with (
        nothing_written(parameter, grad, optimizer=optimizer),
        refused(RuntimeError, "parameter", "apart from grad's"),
    ):
        optimizer.step()


@UPDATES_ON_CPU  # elsewhere what has strides of its own is torch's
@each
def test_strides_by_which_two_elements_meet_are_refused(name: str) -> None:
    """Offset 6 is that of the first row's last element and of the last row's first."""
    parameter = Parameter(torch.ones(32).as_strided((4, 3), (2, 3)))
    parameter.grad = torch.ones(4, 3)
    optimizer = ours(name, [parameter], lr=0.1)
    with (
        nothing_written(parameter, optimizer=optimizer),
        refused(RuntimeError, "parameter", "do not overlap"),
    ):
        optimizer.step()


@each
def test_an_empty_parameter_within_its_gradient_s_memory(name: str) -> None:
    memory = torch.ones(4)
    parameter = Parameter(memory[2:2])
    parameter.grad = memory[1:1]
    ours(name, [parameter], lr=0.1).step()
