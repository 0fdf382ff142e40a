"""What the native loops are given, and when they stop."""

from typing import NamedTuple

from torch import Tensor

from .. import _checks, _ops

__all__ = ["Problem", "StopRule", "checked", "expect_apart"]


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


def checked(problem: Problem) -> Problem:
    """The problem, of one dtype, on one device and in shapes that fit; y not flattened.

    Raises:
        TypeError: dtypes differ, or are none of the kernels'.
        ValueError: shapes or devices differ; a tensor is not dense.
    """
    parameters, x, y, weight = problem.parameters, problem.x, problem.y, problem.weight
    _checks.beside_parameters(parameters[0].device, x=x, y=y, weight=weight)
    _checks.any_dtype([*problem.names, "x", "y", "weight"], [*parameters, x, y, weight])
    mine = ("y", "weight")
    if problem.kernel == "linear":
        outputs = parameters[0].shape[0]
        if problem.flat:
            flat = (x.shape[0] * outputs,)
            for name, tensor in zip(mine, (y, weight), strict=True):
                _checks.expect_shape(name, tensor, flat, "as the prediction")
            y = y.reshape(-1, outputs)
            weight = None if weight is None else weight.reshape(-1, outputs)
        bias = parameters[1] if len(parameters) > 1 else None
        _checks.linear_mse(x, parameters[0], bias, y, weight, mine)
    elif problem.kernel == "polynomial":
        most = _ops.MAX_DEGREE
        _checks.polynomial_mse(x, parameters[0], y, weight, mine, max_degree=most)
    elif problem.kernel == "legendre":
        a, b, c, d = parameters
        _checks.legendre_mse(x, a, b, c, d, y, weight, mine)
    return problem._replace(y=y, weight=weight, flat=False)


def expect_apart(problem: Problem, written: list[tuple[str, Tensor]]) -> None:
    """Check that what is written, parameters and states by name, lies apart from all else.

    Raises:
        ValueError: it shares memory with what is read or written beside it, or with itself.
    """
    mine = {id(tensor) for _, tensor in written}
    read = [("x", problem.x), ("y", problem.y)]
    if problem.weight is not None:
        read.append(("weight", problem.weight))
    read += zip(problem.names, problem.parameters, strict=True)
    _ops.expect_apart(written, [pair for pair in read if id(pair[1]) not in mine])
