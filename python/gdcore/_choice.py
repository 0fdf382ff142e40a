"""Which way a fit is run, and why."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _ops, _runners
from ._batches import Rows, per_element
from ._eager import EagerStep
from ._eager_runner import EagerRunner
from ._names import named_parameters
from ._problem import Problem
from ._runners import Runner, StepwiseRunner
from ._seen import Seen
from .plan import Plan, recognise_loss

METHODS = ("auto", "compressed", "stepwise", "eager")

_COMPRESSED: Any = getattr(_runners, "CompressedRunner", None)


class Choice(NamedTuple):
    """The way that was taken, and why."""

    method: str
    reason: str

    def __str__(self) -> str:
        return f"{self.method}: {self.reason}"


class Chosen(NamedTuple):
    """A choice, what its records hold, and how a runner over some rows is made."""

    choice: Choice
    parameters: dict[str, Tensor]
    """By name, in the order in which a runner records them."""
    runner: Callable[[Rows], Runner]


def choose_runner(
    model: Any,
    loss_fn: Any,
    optimizer: torch.optim.Optimizer,
    rows: Rows | None,
    *,
    method: str,
    strict: bool,
    full_batch: bool,
    max_grad_norm: float | None,
) -> Chosen:
    """Decide between the ways; ``rows`` is None where they are read epoch by epoch.

    Raises:
        ValueError: ``strict``, and it cannot be fused: the reason.
    """
    if method == "eager":
        reason = "it was asked for"
    else:
        try:
            return _native(model, loss_fn, optimizer, rows, method, full_batch, max_grad_norm)
        except _NotFusedError as error:
            reason = str(error)
            if strict:
                raise ValueError(reason) from error
    step = EagerStep(model, loss_fn, optimizer, max_grad_norm)

    def eager(rows: Rows) -> Runner:
        return EagerRunner(step, rows)

    return Chosen(Choice("eager", reason), named_parameters(model, optimizer), eager)


class _NotFusedError(Exception):
    """The reason why the native loops do not take a fit."""


def _native(
    model: Any,
    loss_fn: Any,
    optimizer: torch.optim.Optimizer,
    rows: Rows | None,
    method: str,
    full_batch: bool,
    max_grad_norm: float | None,
) -> Chosen:
    try:
        plan = Plan(model, loss_fn, optimizer)
        mean = recognise_loss(loss_fn, Seen())
    except (TypeError, ValueError) as error:
        raise _NotFusedError(str(error)) from error
    native = plan.model
    for name, parameter in zip(native.names, native.parameters, strict=True):
        if parameter.device.type not in ("cpu", "meta"):
            raise _NotFusedError(f"model: expected {name} on the CPU, got it on {parameter.device}")
        if parameter.dtype not in (torch.float32, torch.float64):
            raise _NotFusedError(
                f"model: expected {name} in float32 or float64, got {parameter.dtype}"
            )
    weighted = rows is not None and rows.weight is not None
    if (weighted or max_grad_norm is not None) and not getattr(StepwiseRunner, "weights", True):
        raise _NotFusedError("weights per row and clipping are not native yet")
    if method == "compressed" and not full_batch:
        raise _NotFusedError("method: expected the full batch to be compressed, got minibatches")
    kind: Any = StepwiseRunner
    if method == "compressed":
        if _COMPRESSED is None or native.kernel == "legendre":
            raise _NotFusedError(f"{native.kernel}: expected an affine model to compress")
        kind = _COMPRESSED

    def runner(rows: Rows) -> Runner:
        check_native(rows.x, rows.y)
        assert isinstance(rows.x, Tensor)
        problem = Problem(
            native.kernel,
            native.names,
            native.parameters,
            rows.x,
            rows.y,
            per_element(rows),
            mean,
            native.flat,
        )
        made: Runner = kind(problem, optimizer, max_grad_norm=max_grad_norm)
        return made

    why = "it was asked for" if method == kind.method else f"{native.kernel} has a kernel"
    parameters = dict(zip(native.names, native.parameters, strict=True))
    return Chosen(Choice(kind.method, why), parameters, runner)


def check_native(x: Any, y: Any) -> None:
    """What native code can only take in plain memory."""
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
