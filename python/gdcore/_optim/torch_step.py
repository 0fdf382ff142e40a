"""Steps that torch makes in place of the native one.

Each is rehearsed, so that what torch refuses is refused before anything has changed. Half types are
computed in float32 and rounded once, as natively; torch's own update rounds at every operation, and
its fused kernels leave most elements as they are.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from .._checks import HALF
from . import namesake, rehearsal
from .namesake import Group


def step(optimizer: Any, groups: list[Group], scale: Tensor | None = None) -> None:
    """The namesake's step of these groups, or an error, and nothing has changed.

    Args:
        optimizer: whose state it is.
        groups: all of the optimizer's, as far as torch has to update their parameters.
        scale: what gradients of half types are to be divided by.
    """
    state = optimizer.state
    with_state = {id(p) for p, values in state.items() if values}
    steps: list[_Step] = []
    try:
        for number, group in enumerate(groups):
            steps += _steps_of(optimizer, group, number, scale)
        for one in steps:
            one.rehearse()
        for one in steps:
            one.run()
    except BaseException:
        for parameter in [p for p in state if id(p) not in with_state]:
            del state[parameter]
        raise


def _steps_of(optimizer: Any, group: Group, number: int, scale: Tensor | None) -> list["_Step"]:
    """One for each parameter of a half type, which is copied, and one for the others together."""
    alone: list[Tensor] = []
    together: list[Tensor] = []
    for parameter in group["params"]:
        if parameter.grad is None:
            continue
        rehearsal.look_through(optimizer, {**group, "params": [parameter]}, number)
        if group.get("fused") and parameter.grad.layout is not torch.strided:
            raise RuntimeError(
                f"fused: expected False with sparse gradients, got True in param_groups[{number}]"
            )
        half = parameter.dtype in HALF or parameter.grad.dtype in HALF
        on_cpu = parameter.device.type == "cpu" or scale is not None
        (alone if half and on_cpu else together).append(parameter)
    steps: list[_Step] = [_StepInFloat32(optimizer, group, number, p, scale) for p in alone]
    return [*steps, _Step(optimizer, group, number, together)] if together else steps


class _Step:
    """A step of some parameters of one group."""

    def __init__(self, optimizer: Any, group: Group, number: int, parameters: list[Tensor]) -> None:
        self.optimizer = optimizer
        self.group = {**group, "params": parameters}
        self.number = number

    def run(self) -> None:
        namesake.step(namesake.stand_in(self.optimizer, [self.group]))

    def dtype_of(self, tensor: Tensor) -> torch.dtype:
        """In which a parameter, gradient or state enters the step."""
        return tensor.dtype

    def rehearse(self) -> None:
        rehearsal.rehearse(self.optimizer, self.group, self.number, self.dtype_of)


class _StepInFloat32(_Step):
    """A step of one parameter, whose halves are copied and come back rounded."""

    def __init__(
        self,
        optimizer: Any,
        group: Group,
        number: int,
        parameter: Tensor,
        scale: Tensor | None,
    ) -> None:
        single: Group = {key: False for key in ("foreach", "fused") if key in group}
        super().__init__(optimizer, {**group, **single}, number, [parameter])
        self.scale = scale

    def dtype_of(self, tensor: Tensor) -> torch.dtype:
        return torch.float32 if tensor.dtype in HALF else tensor.dtype

    def run(self) -> None:
        (parameter,) = self.group["params"]
        values = self.optimizer.state.get(parameter, {})
        with torch.set_grad_enabled(self.optimizer.defaults["differentiable"]):
            wide = parameter.view_as(parameter) if torch.is_grad_enabled() else parameter.detach()
            wide, grad = _widened(wide), _widened(parameter.grad)
            if self.scale is not None:
                grad = grad / self.scale.to(grad.device)
                parameter.grad.copy_(grad)
            wide.grad = grad
            state = {key: _widened(value) for key, value in values.items()}
        made = namesake.stand_in(
            self.optimizer,
            [{**self.group, "params": [wide]}],
            state=defaultdict(dict, {wide: state}),
        )
        namesake.step(made)
        with torch.set_grad_enabled(self.optimizer.defaults["differentiable"]):
            if parameter.dtype in HALF:
                parameter.copy_(wide)
            for key, value in made.state[wide].items():
                if values.get(key) is None:
                    self.optimizer.state[parameter][key] = value.to(parameter.grad.dtype)
                elif values[key] is not value:
                    values[key].copy_(value)


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value
