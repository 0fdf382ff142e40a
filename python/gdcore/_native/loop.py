"""The native loop with what lasts from run to run."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _ops
from .._optim.settings import plain
from .optimizers import fresh_state, rule_of
from .problem import Problem, StopRule
from .shuffle import Order, Shuffled

__all__ = ["NativeLoop", "Ran", "epoch_of_batches", "training_of"]


@dataclass
class Ran:
    """What a run did."""

    losses: Tensor
    """(epochs,): of each before its update; in minibatches the mean of the batches' losses, each
    weighted by its rows."""
    step_losses: Tensor | None
    """(steps,) of an epoch in minibatches."""
    records: Tensor | None
    """(records, p): θ after the update of epochs 0, record_every, …"""
    epochs: int
    """How many have a loss."""
    outcome: str
    """``"finished"``, ``"stopped"``, ``"diverged"`` or ``"interrupted"``."""
    raised: BaseException | None = None
    """What a signal handler raised."""
    updates: int = 0
    """How many were made: the last loss of a run that was stopped or diverged has none."""


def training_of(
    problem: Any,
    mean: bool,
    optimizer: torch.optim.Optimizer,
    index: Tensor | None = None,
) -> _ops.Training:
    """The native loop over the parameters of a problem, or of a model with a kernel."""

    def fresh(group: dict[str, Any], parameter: Tensor) -> Any:
        return fresh_state(optimizer, group, parameter)

    parameters, rule = problem.parameters, rule_of(optimizer)
    return _ops.training(problem.kernel, problem.flat, parameters, mean, rule, fresh, index)


_CPU = torch.device("cpu")
_OVERFLOW = {torch.float32: float.fromhex("0x1.ffffffp127"), torch.float64: float("inf")}
"""The smallest number that is infinite in a dtype."""


class NativeLoop:
    """The native loop with what lasts over its runs: one training, and the best loss so far."""

    def __init__(
        self,
        problem: Problem,
        optimizer: torch.optim.Optimizer,
        max_grad_norm: float | None,
        shown: torch.dtype,
    ) -> None:
        self._problem = problem
        self._training = training_of(problem, problem.mean, optimizer, problem.index)
        self._max_grad_norm = -1.0 if max_grad_norm is None else max_grad_norm
        self._overflow = _OVERFLOW.get(shown, math.inf)  # another is refused when it runs
        self._rule: StopRule | None = None
        self._stop: Any = None

    def __call__(
        self,
        groups: list[dict[str, Any]],
        state: dict[Tensor, Any],
        epochs: int,
        record_every: int,
        order: Order | None,
        batch_size: int | None,
        stop: StopRule | None,
    ) -> Ran:
        problem, batches = self._problem, batch_size is not None
        rows = problem.x.shape[0] if order is None else len(order)
        steps = -(-rows // batch_size) if batch_size is not None else epochs
        dtype = problem.x.dtype
        losses = torch.empty(steps, dtype=dtype, device=_CPU)
        size = sum(parameter.numel() for parameter in problem.parameters)
        count = -(-epochs // record_every) if record_every and not batches else 0
        records = torch.empty((count, size), dtype=dtype, device="cpu") if record_every else None
        rule = self._rule_for(stop, batches)
        done, updates, outcome, raised = self._training.run(
            problem.x,
            problem.y,
            problem.weight,
            list(map(plain, groups)),
            state,
            losses,
            epochs,
            record_every if count else 0,
            records if count else None,
            torch.get_num_threads(),
            (order.state, order.n, order.count) if isinstance(order, Shuffled) else order,
            batch_size or 0,
            self._max_grad_norm,
            None if batches else rule,
            self._overflow,
        )
        if batch_size is not None:
            ran = epoch_of_batches(losses[:done], rows, batch_size, outcome, raised, updates)
            if ran.outcome == "finished":
                if rule is not None and rule.holds(ran.losses.item()):
                    ran.outcome = "stopped"
                if record_every:
                    ends = [parameter.detach().reshape(-1) for parameter in problem.parameters]
                    ran.records = torch.cat(ends).unsqueeze(0)
            return ran
        if records is not None:
            records = records[: -(-updates // record_every)]
        if done < steps:
            losses = losses[:done].clone()  # most of the memory may be unused
        return Ran(losses, None, records, done, outcome, raised, updates)

    def _rule_for(self, stop: StopRule | None, batches: bool) -> Any:
        if stop is None:
            return None
        if batches and stop.gradient_norm_below is not None:
            raise ValueError(
                "stop: expected gradient_norm_below with the full batch, got it with minibatches"
            )
        if stop != self._rule:
            never = float("-inf")
            self._rule = stop
            self._stop = _ops.StopRule(
                never if stop.loss_below is None else stop.loss_below,
                stop.no_improvement_for or 0,
                never if stop.gradient_norm_below is None else stop.gradient_norm_below,
            )
        return self._stop


def epoch_of_batches(
    losses: Tensor,
    rows: int,
    batch_size: int,
    outcome: str,
    raised: BaseException | None,
    updates: int,
) -> Ran:
    """An epoch from the losses of its batches."""
    if outcome == "interrupted":
        return Ran(losses[:0], losses, None, 0, outcome, raised, updates)
    weighted = losses.double() * batch_size
    if outcome == "finished":
        if rows % batch_size:
            weighted[-1] = losses[-1].double() * (rows % batch_size)
    else:
        rows = len(losses) * batch_size
    mean = weighted.sum() / rows
    return Ran(mean.to(losses.dtype).reshape(1), losses, None, 1, outcome, raised, updates)
