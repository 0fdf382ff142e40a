"""Native training: one step, or the whole loop, in one call."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _ops
from ._history import DivergenceError, History
from ._runners import Ran, StepwiseRunner
from ._turns import turn_of
from .plan import LossFunction, NativeModel, Plan

__all__ = ["DivergenceError", "History", "fit", "train_step"]


_MOST = 2**40
"""Epochs beyond which not even their losses would fit in memory."""


def _check_data(x: Any, y: Any) -> None:
    for name, tensor in (("x", x), ("y", y)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
        if type(tensor) not in _ops.PLAIN:
            raise TypeError(f"{name}: expected a plain tensor, got a {type(tensor).__name__}")
        if tensor.requires_grad:
            raise ValueError(
                f"{name}: expected a tensor that does not require grad, got one that does; "
                f"use {name}.detach()"
            )
        if tensor.is_neg():
            raise ValueError(
                f"{name}: expected plain memory, got a lazy negation; use {name}.resolve_neg()"
            )
    if torch.is_autocast_enabled("cpu"):
        raise ValueError("autocast: expected it to be off in a native step, got it on")


def train_step(
    model: torch.nn.Module, loss_fn: LossFunction, optimizer: torch.optim.Optimizer
) -> Callable[[Tensor, Tensor], Tensor]:
    """Forward, ``zero_grad``, ``backward`` and ``optimizer.step()`` as one native call.

    One call of the returned function does what ::

        loss = loss_fn(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    does, except that ``.grad`` of the parameters is left as it was. Learning rates, hooks and
    parameters are read afresh at each call, so schedulers work.

    Args:
        model: exactly ``nn.Linear``, ``Sequential(Linear, Flatten)`` or a model of `gdcore.nn`.
        loss_fn: ``nn.MSELoss``, ``F.mse_loss``, or gdcore's; mean or sum.
        optimizer: ``torch.optim.SGD`` or `gdcore.optim.SGD`.

    Returns:
        ``step(x, y)``, which updates the parameters in place and returns the loss before the
        update as a new tensor of shape ().

    Raises:
        TypeError: a model, loss or optimizer that is not recognised, or, from ``step``, an argument
            that is not a tensor of the parameters' dtype.
        ValueError: one that carries hooks, or, from ``step``, a shape that does not fit. Nothing
            has been written then.

    Example:
        >>> model = gdcore.nn.LinearRegression()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> step = gdcore.train_step(model, torch.nn.MSELoss(), optimizer)
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> losses = [step(x, 2 * x).item() for _ in range(200)]
        >>> losses[-1] < 1e-4
        True

    Reference:
        `gdcore.reference` for the formulas.
    """
    Plan(model, loss_fn, optimizer)  # what is not recognised is refused here already
    native: Callable[[Tensor, Tensor], Tensor | None] | None = None

    lock = turn_of(optimizer)

    def step(x: Tensor, y: Tensor) -> Tensor:
        nonlocal native
        with lock:
            loss = None if native is None else native(x, y)
            if loss is None:
                stepper = Plan(model, loss_fn, optimizer).step(_check_data)
                loss = stepper(x, y)
                if loss is None:
                    raise RuntimeError("model: expected it to stay as it is, got a change")
                native = stepper
            return loss

    return step


def fit(
    model: torch.nn.Module,
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer,
    data: tuple[Tensor, Tensor],
    *,
    epochs: int,
    record_every: int | None = None,
) -> History:
    """Train on the full batch for a number of epochs, the whole loop in native code.

    Each epoch is one step as `train_step` describes it: one pass over the rows, the gradient and
    the update fused, parameters rounded to their dtype every time. Parameters and optimizer state
    are updated in place, so training can go on in plain PyTorch. Two threads that train with one
    optimizer take turns.

    Args:
        model: exactly ``nn.Linear``, ``Sequential(Linear, Flatten)`` or a model of `gdcore.nn`.
        loss_fn: ``nn.MSELoss``, ``F.mse_loss``, or gdcore's; mean or sum.
        optimizer: ``torch.optim.SGD`` or `gdcore.optim.SGD`, with all its options.
        data: ``(x, y)``, of the parameters' dtype, on the CPU.
        epochs: how many updates.
        record_every: keep the parameters after the update of every so many epochs, from the first.

    Returns:
        The `History`: the loss of every epoch, the recorded parameters, the time.

    Raises:
        TypeError: a model, loss or optimizer that is not recognised, or data of another type.
        ValueError: hooks, a shape that does not fit, no rows, or a count out of range. Nothing has
            been written then.
        DivergenceError: the loss stopped being finite. The parameters hold the last finite values.
            (An update that goes past the finite numbers shows in the loss of the next epoch.)
        KeyboardInterrupt: Ctrl-C, answered within 100 ms (with more than a few million parameters,
            within the time of some rows). The parameters are those of the last whole epoch, and the
            exception carries the `History` until then as ``history``.

    Example:
        >>> model = gdcore.nn.LinearRegression()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> history = gdcore.fit(model, torch.nn.MSELoss(), optimizer, (x, 2 * x), epochs=500)
        >>> round(model(torch.tensor([[4.0]])).item(), 3)
        8.0

    Reference:
        `gdcore.reference` for the formulas.
    """
    with turn_of(optimizer):
        return _fit(Plan(model, loss_fn, optimizer), data, epochs, record_every)


def _fit(plan: Plan, data: Any, epochs: int, record_every: int | None) -> History:
    native = plan.model
    x, y = _unpack(data)
    _check_count("epochs", epochs, 0)
    if record_every is not None:
        _check_count("record_every", record_every, 1)
    start = time.perf_counter()
    runner = StepwiseRunner(plan.problem(x, y), plan.optimizer)
    ran = runner.run(epochs, record_every=record_every or 0)
    seconds = time.perf_counter() - start
    history = _history(native, ran, record_every, seconds)
    if ran.raised is not None:
        ran.raised.history = history  # type: ignore[attr-defined]
        raise ran.raised
    if ran.outcome == "diverged":
        lr = max((float(group["lr"]) for group in plan.optimizer.param_groups), key=abs)
        raise DivergenceError(ran.epochs - 1, lr, None, history)
    return history


def _unpack(data: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        got = f"{len(data)} of them" if isinstance(data, (tuple, list)) else type(data).__name__
        raise TypeError(f"data: expected (x, y), got {got}")
    x, y = data
    _check_data(x, y)
    if x.dim() > 0 and x.shape[0] == 0:
        raise ValueError(f"data: expected at least one row, got x of shape {tuple(x.shape)}")
    return x, y


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    if value > _MOST:
        raise ValueError(f"{name}: expected at most {_MOST}, got {value}")


def _history(model: NativeModel, ran: Ran, record_every: int | None, seconds: float) -> History:
    parameters = {}
    if ran.records is not None:
        offset = 0
        for name, parameter in zip(model.names, model.parameters, strict=True):
            size = parameter.numel()
            values = ran.records[:, offset : offset + size]
            parameters[name] = values.reshape(len(values), *parameter.shape)
            offset += size
    return History(ran.losses, parameters, record_every, seconds)
