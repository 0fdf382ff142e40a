"""Saying beforehand how a fit would run, and why, as a database's EXPLAIN does."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._loop import fitting as _fit
from ._loop.arguments import Settings, check_objects, checked
from ._loop.explanation import Plan
from ._loop.turns import after_fork, turn_of
from ._recognition.models import LossFunction
from .stopping import Stop

__all__ = ["Plan", "explain"]


def explain(
    model: Callable[..., Tensor],
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer,
    data: Any,
    *,
    epochs: int,
    batch_size: int | None = None,
    shuffle: bool = False,
    weight: Tensor | None = None,
    max_grad_norm: float | None = None,
    stop: Stop | None = None,
    method: str = "auto",
) -> Plan:
    """How `gdcore.fit` would train with these arguments, and why; nothing is trained.

    Of the arguments of `gdcore.fit`, it takes those that have a part in the choice. The model is
    looked at as `gdcore.affine.affine_form` does, so it runs forward a few times, with other
    values of the parameters too: whoever trains with the optimizer in another thread waits
    meanwhile.

    Args:
        model: an ``nn.Module``, or a function of x over tensors that the optimizer holds.
        loss_fn: called as ``loss_fn(prediction, target)``.
        optimizer: holds the parameters that are trained.
        data: ``(x, y)``, x a tensor or a tuple of them, a ``TensorDataset``, or a ``DataLoader``
            over one.
        epochs: how many.
        batch_size: rows of a minibatch, or None for all of them.
        shuffle: whether the rows of the minibatches are drawn in random order.
        weight: the loss's weight of each row, or None.
        max_grad_norm: what the gradient's norm is clipped to, or None.
        stop: what `gdcore.stop_when` returns, or None.
        method: ``"auto"``, or one of the three ways.

    Returns:
        The `Plan`, which prints as a tree.

    Raises:
        ValueError: an argument that `gdcore.fit` refuses.
        TypeError: an argument of another type.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> data = (torch.ones(5, 3), torch.ones(5, 1))
        >>> plan = gdcore.explain(net, torch.nn.MSELoss(), optimizer, data, epochs=100)
        >>> plan.method, plan.why
        ('eager', 'model: ReLU is not affine in its input')

    Reference:
        The EXPLAIN of SQL databases.
    """
    check_objects(model, loss_fn, optimizer)
    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        shuffle=shuffle,
        weight=weight,
        max_grad_norm=max_grad_norm,
        stop=stop,
        method=method,
    )
    settings = checked(settings, optimizer)
    with turn_of(optimizer), after_fork():
        return _fit.choose(model, loss_fn, optimizer, data, settings)[1].plan
