"""A problem as the native loops take it, and when one of them is to stop early."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["Problem", "StopRule"]


class Problem(NamedTuple):
    """A least-squares problem: a kernel, its parameters in the kernel's order, its data."""

    kernel: str
    names: tuple[str, ...]
    parameters: tuple[Tensor, ...]
    x: Tensor
    y: Tensor
    weight: Tensor | None
    mean: bool
    flat: bool = False
    index: Tensor | None = None  # type: ignore[assignment]


class StopRule(NamedTuple):
    """When to stop: after the loss of an epoch is known, before its update. None never holds."""

    loss_below: float | None = None
    no_improvement_for: int | None = None
    gradient_norm_below: float | None = None
