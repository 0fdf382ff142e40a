"""What the native loops are given, and when they stop."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["Problem", "StopRule"]


class Problem(NamedTuple):
    """A least-squares objective: the mean, or sum, of w (prediction - y)² over the elements of y.

    Kernels ``"linear"`` (weight and bias), ``"polynomial"`` and ``"legendre"`` have parameters of
    their own; ``"indexed"`` is ``prediction[i, o] = Σ_j x[i, j] θ[index[o, j]]``, θ being the
    parameters end to end.
    """

    kernel: str
    names: tuple[str, ...]
    parameters: tuple[Tensor, ...]
    """In θ's order."""
    x: Tensor
    """The kernel's input; (n, q) features for an indexed one."""
    y: Tensor
    """The target, in the prediction's shape; (n, k) for an indexed kernel."""
    weight: Tensor | None
    """The loss's weights w in the shape of y. The mean is then Σ w r² / Σ w."""
    mean: bool
    flat: bool = False
    """Whether a linear model's (n, k) prediction is flattened to (n k,)."""
    index: Tensor | None = None  # type: ignore[assignment]
    """int64 (k, q): places in θ, or -1 for a weight of 0."""


class StopRule(NamedTuple):
    """When to stop before all epochs are done: as soon as one of these holds.

    The loss, and the norm of the gradient, are those before an epoch's update, which is then not
    made.
    """

    loss_below: float | None = None
    no_improvement_for: int | None = None
    """Epochs without a loss below the best."""
    gradient_norm_below: float | None = None
