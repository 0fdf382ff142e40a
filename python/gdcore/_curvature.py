"""What the curvature of a loss says of its training before the first step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ._insight.curvature import Curvature, affine_curvature
from ._insight.design import NoDesign, design, unpack
from ._insight.hessian import hessian_extremes
from ._insight.quadratic import Quadratic
from ._recognition.models import LossFunction

__all__ = ["Curvature", "curvature"]


def curvature(
    model: Any,
    loss_fn: LossFunction,
    data: Any,
    *,
    parameters: Iterable[Tensor] | None = None,
) -> Curvature:
    """How the loss bends as the parameters move: which learning rates train, and how fast.

    For a model that is affine in its parameters and a squared error, the curvatures are those of
    the whole loss, from the singular values of the features; for any other, those of the Hessian
    at the parameters as they are. Nothing is changed.

    Args:
        model: a module, or a function of x with its tensors in ``parameters``.
        loss_fn: a squared error, mean or sum: ``nn.MSELoss``, ``F.mse_loss``, gdcore's, or a
            function that computes one. Any other loss has its Hessian at the parameters.
        data: ``(x, y)``, ``(x, y, weight)`` with a weight for each row or element of y, or a
            ``TensorDataset`` of these.
        parameters: the tensors that are trained; the model's own that require grad if not given.

    Returns:
        The `Curvature`; print it.

    Raises:
        TypeError: data of another kind.
        ValueError: shapes that do not fit, no rows, or numbers that are not finite.

    Warns:
        RuntimeWarning: with more than 4 096 features (and rows) some figures are estimates: which,
            and whether the true ones are larger or smaller.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> model = gdcore.nn.LinearRegression()
        >>> found = gdcore.curvature(model, torch.nn.MSELoss(), (x, 2 * x))
        >>> round(found.best_lr, 3), found.rank
        (0.176, 2)
        >>> round(found.optimum["weight"].item(), 6)
        2.0

    Reference:
        Golub and Van Loan, "Matrix Computations", for the factorisation; Pearlmutter, "Fast exact
        multiplication by the Hessian", 1994.
    """
    if parameters is None and isinstance(model, torch.nn.Module):
        parameters = model.parameters()
    trained = [parameter for parameter in parameters or () if parameter.requires_grad]
    found = design(model, loss_fn, data, trained)
    if not isinstance(found, NoDesign):
        return affine_curvature(Quadratic(found))
    extremes = hessian_extremes(model, loss_fn, *unpack(data), trained)
    return Curvature(
        extremes.largest,
        extremes.smallest,
        extremes.rank,
        sum(parameter.numel() for parameter in trained),
        False,
        True,
        found.reason,
        None,
    )
