"""The native core. Only `gdcore._ops` imports it; what it accepts is checked there and in C++."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__version__: str
compiler: str
max_degree: int

def connect(tensor_class: type) -> None: ...
def connect_device_updates(updates: object) -> None: ...
def built_instruction_sets() -> list[str]: ...
def available_instruction_sets() -> list[str]: ...
def active_instruction_set() -> str: ...
def choose_instruction_set(name: str) -> None: ...
def plain(inputs: tuple[object, ...], constants: int = 0, optional: int = 0) -> bool: ...
def is_one(grad: Tensor) -> bool: ...
def mse(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    loss: Tensor,
    gradient: Tensor | None,
    threads: int,
) -> None: ...
def model_loss(
    model: str,
    x: Tensor,
    target: Tensor,
    parameters: Sequence[Tensor],
    loss_weight: Tensor | None,
    mean: bool,
    with_dx: bool,
    threads: int,
) -> tuple[Any, ...]: ...
def legendre_p3(x: Tensor, grad: Tensor | None, out: Tensor, threads: int) -> None: ...

class _Step:
    def __init__(
        self, plain_types: tuple[type, ...], before_writing: Callable[[list[Tensor]], None]
    ) -> None: ...
    def step(
        self,
        groups: Sequence[dict[str, Any]],
        state: dict[Tensor, Any],
        fresh: dict[Tensor, Any] | None,
        threads: int,
        skip: Tensor | None,
    ) -> tuple[list[Tensor], list[Tensor]] | None: ...

class SgdStep(_Step): ...
class RmspropStep(_Step): ...
class AdamStep(_Step): ...

class StopRule:
    """When to stop, and the best loss so far: one object lasts over several runs."""

    def __init__(
        self, loss_below: float, no_improvement_for: int, gradient_norm_below: float
    ) -> None: ...
    def holds(self, loss: float) -> bool: ...

class Training:
    def __init__(
        self,
        model: str,
        flat: bool,
        parameters: Sequence[Tensor],
        mean: bool,
        optimizer: str,
        plain_types: tuple[type, ...],
        fresh: Callable[[dict[str, Any], Tensor], dict[str, Tensor]],
        index: Tensor | None,
    ) -> None: ...
    def check(self, groups: list[dict[str, Any]]) -> None: ...
    def check_run(
        self,
        x: Tensor,
        target: Tensor,
        weight: Tensor | None,
        groups: list[dict[str, Any]],
        state: dict[Tensor, Any],
    ) -> None: ...
    def run(
        self,
        x: Tensor,
        target: Tensor,
        weight: Tensor | None,
        groups: list[dict[str, Any]],
        state: dict[Tensor, Any],
        losses: Tensor,
        epochs: int,
        record_every: int,
        records: Tensor | None,
        threads: int,
        order: Tensor | tuple[Tensor, int, int] | None,
        batch_size: int,
        max_grad_norm: float,
        stop: StopRule | None,
        overflow: float,
    ) -> tuple[int, int, str, BaseException | None]: ...

def step(
    training: Training,
    watch: Watch,
    optimizer: torch.optim.Optimizer,
    check: Callable[[Any, Any], None],
    float32_scalar: Tensor,
    float64_scalar: Tensor,
) -> Callable[[Tensor, Tensor], Tensor | None]: ...
def triangle(parts: tuple[Tensor | None, ...], weight: Tensor | None, factor: Tensor) -> None: ...
def scale_finite(values: Tensor, factor: float) -> None: ...
def sum_of_squares(x: Tensor) -> float: ...
def expect_apart(written: list[tuple[str, Tensor]], read: list[tuple[str, Tensor]]) -> None: ...
def shuffle(state: Tensor, n: int, order: Tensor | None) -> None: ...

class Watch:
    def item(self, mapping: dict[Any, Any], key: object) -> None: ...
    def attribute(self, object: object, name: str) -> None: ...
    def type(self, object: object) -> None: ...
    def size(self, mapping: dict[Any, Any]) -> None: ...
    def empty(self, mapping: dict[Any, Any]) -> None: ...
    def elements(self, list: list[Any]) -> None: ...
    def unchanged(self) -> bool: ...
