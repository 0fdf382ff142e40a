"""Training on CUDA over the rows themselves: a runner for `fit`, a step for `train_step`."""

import time
from typing import Any

import torch
from torch import Tensor

from ..stopping import RuleState
from . import interrupts as _interrupts
from .cuda_loop import CudaLoop, both_ways, in_one_block, unsuited
from .loop import Ran, epoch_of_batches
from .optimizers import rule_of
from .problem import Problem, StopRule, checked
from .runners import mark_stepped, stepwise_limit
from .shuffle import Order, rows_in
from .stability import surely_stable

__all__ = ["CudaRunner", "CudaStep", "no_step"]

_CHUNK = 0.02
"""Seconds of epochs that are put on the stream before anybody waits, and looks for Ctrl-C."""
_OF_ONE_BLOCK = 2**12
_ELEMENTS = 2**23
"""Most epochs of the first chunk where each is one block's, and elements of all of them together:
tens of milliseconds if one took ten times what it is estimated to take."""


class CudaRunner:
    """Every step passes over its rows; nothing waits for the device but the end of a chunk.

    A small problem's chunk is one launch, most often of all epochs; a large one's is two or three
    for each epoch. How epochs are cut into chunks does not change the numbers.

    Raises:
        TypeError: dtypes that differ.
        ValueError: shapes or devices that differ; what `unsuited` says of model and optimizer.
        RuntimeError: the current stream is being captured into a graph.
    """

    method = "stepwise"

    def __init__(
        self,
        problem: Problem,
        optimizer: torch.optim.Optimizer,
        *,
        max_grad_norm: float | None = None,
    ) -> None:
        index = problem.index
        indexed = None if index is None else (index.shape[0], index.shape[1])
        reason = unsuited(problem.kernel, problem.parameters, optimizer.param_groups, indexed)
        if reason is not None:
            raise ValueError(reason)
        if _captured(problem.x):
            raise RuntimeError(
                "fit: expected no capture into a CUDA graph, as it waits for its losses; capture "
                "calls of train_step's step instead"
            )
        self._problem, self._optimizer = checked(problem), optimizer
        self._clip = max_grad_norm
        self._rule: RuleState | None = None
        self._index = () if index is None else both_ways(index, problem.parameters)
        self._chunk = 1  # epochs, until it is known how long they take
        if in_one_block(problem.kernel, problem.parameters, len(problem.x)):
            elements = problem.x.numel() + problem.y.numel()
            self._chunk = max(min(_ELEMENTS // max(elements, 1), _OF_ONE_BLOCK), 1)

    def run(
        self,
        epochs: int,
        *,
        record_every: int = 0,
        order: Order | None = None,
        batch_size: int | None = None,
        stop: StopRule | None = None,
    ) -> Ran:
        if stop is not None and (self._rule is None or self._rule.rule != stop):
            self._rule = RuleState(stop)
        rule = None if stop is None else self._rule
        if batch_size is not None:
            if stop is not None and stop.gradient_norm_below is not None:
                raise ValueError(
                    "stop: expected gradient_norm_below with the full batch, got it with "
                    "minibatches"
                )
            return self._minibatches(order, batch_size, rule, record_every > 0)
        norms = stop is not None and stop.gradient_norm_below is not None
        ran = self._full_batch(epochs, record_every, rule, norms)
        if ran.updates > 0:
            mark_stepped(self._optimizer)
        return ran

    def _loop(self, steps: int, record_every: int = 0, norms: bool = False) -> CudaLoop:
        optimizer = self._optimizer
        held = (rule_of(optimizer), optimizer.param_groups, optimizer.state)
        return CudaLoop(
            self._problem,
            *held,
            steps,
            record_every=record_every,
            max_grad_norm=self._clip,
            norms=norms,
            index=self._index,
        )

    def _full_batch(
        self, epochs: int, record_every: int, rule: RuleState | None, norms: bool
    ) -> Ran:
        loop = self._loop(epochs, record_every, norms)
        outcome = "finished"
        while outcome == "finished" and loop.made < epochs:
            if _interrupts.waiting():
                outcome = "interrupted"
                break
            outcome = self._advance(loop, min(self._chunk, epochs - loop.made), rule)
        updates = loop.made
        done = updates + (outcome in ("diverged", "stopped"))
        records = None
        if loop.records is not None:
            records = loop.records[: -(-updates // record_every)].cpu()
        return Ran(loop.losses[:done].cpu(), None, records, done, outcome, None, updates)

    def _advance(self, loop: CudaLoop, count: int, rule: RuleState | None) -> str:
        """A chunk of epochs, and how it ended; the loop has then made as many as count."""
        first, before = loop.made, None
        if rule is not None:
            before = [tensor.detach().clone() for tensor in loop.written]
        began = time.perf_counter()
        loop.put(count)
        at = loop.wait()
        took = time.perf_counter() - began
        self._chunk = max(int(count * _CHUNK / max(took, 1e-6)), 1)
        if rule is None or before is None:
            return "finished" if at is None else "diverged"
        losses = loop.losses[first : loop.made].tolist()
        norms: list[Any] = [None] * len(losses)
        if loop.norms is not None:
            norms = loop.norms[first : loop.made].tolist()
        for i, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
            if rule.holds(loss, norm):
                # The epochs before it are made again, from where the chunk began: the same bits.
                with torch.no_grad():
                    for tensor, values in zip(loop.written, before, strict=True):
                        tensor.copy_(values)
                loop.go_back(first)
                if i > 0:
                    loop.put(i)
                return "stopped"
        return "finished" if at is None else "diverged"

    def _minibatches(
        self, order: Order | None, batch_size: int, rule: RuleState | None, records: bool
    ) -> Ran:
        """One epoch, its rows gathered once."""
        problem = self._problem
        x, y, weight = problem.x, problem.y, problem.weight
        if order is not None:
            picked = rows_in(order).to(x.device)
            x, y = x[picked], y[picked]
            weight = None if weight is None else weight[picked]
        rows = x.shape[0]
        loop = self._loop(-(-rows // batch_size))
        outcome = "finished"
        for first in range(0, rows, batch_size):
            if _interrupts.waiting():
                outcome = "interrupted"
                break
            part = slice(first, first + batch_size)
            loop.put(1, (x[part], y[part], None if weight is None else weight[part]))
        at = loop.wait()
        if outcome == "finished" and at is not None:
            outcome = "diverged"
        done = loop.made + (outcome == "diverged")
        if loop.made > 0:
            mark_stepped(self._optimizer)
        losses = loop.losses[:done].cpu()
        ran = epoch_of_batches(losses, rows, batch_size, outcome, None, loop.made)
        if outcome == "finished" and rule is not None and rule.holds(ran.losses.item()):
            ran.outcome = "stopped"
        if outcome == "finished" and records:
            flat = [parameter.detach().reshape(-1).cpu() for parameter in problem.parameters]
            ran.records = torch.cat(flat).unsqueeze(0)
        return ran

    def show(self) -> None:
        """Nothing is held inside."""

    @property
    def largest_stable_lr(self) -> float | None:
        return stepwise_limit(self._problem, self._optimizer, self._clip)

    def surely_stable(self, rate: float) -> bool:
        return surely_stable(self._problem, self._optimizer, rate, self._clip)


def no_step(model: Any, optimizer: torch.optim.Optimizer) -> str | None:
    """Why a single update of a ``NativeModel`` is not native, or None where it is."""
    for group in optimizer.param_groups:
        if "betas" in group and group.get("fused"):
            return "optimizer: expected steps that are counted on the CPU, got fused=True"
        if any(map(_elsewhere, group.values())):
            return (
                "optimizer: expected settings that are read without waiting, got a tensor on CUDA"
            )
    if any(_elsewhere(optimizer.state.get(p, {}).get("step")) for p in model.parameters):
        return "optimizer: expected steps that are counted on the CPU, got a count on CUDA"
    return unsuited(model.kernel, model.parameters, optimizer.param_groups)


def _elsewhere(value: Any) -> bool:
    """Whether to read it would be to wait for a device."""
    return isinstance(value, Tensor) and not value.is_cpu


def _captured(x: Tensor) -> bool:
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def _expect_repeatable(rule: str, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """A graph would replay the count of the step that it was captured at, and a first step."""
    if rule != "sgd":
        raise RuntimeError(
            "capturable: expected True, as the step is being captured into a CUDA graph, got False"
        )
    groups = [group for group in optimizer.param_groups if group["momentum"] != 0]
    held = {id(p) for group in groups for p in group["params"] if p.requires_grad}
    states = [optimizer.state.get(p) or {} for p in model.parameters if id(p) in held]
    if any(state.get("momentum_buffer") is None for state in states):
        raise RuntimeError(
            "momentum_buffer: expected one, as the step is being captured into a CUDA graph, got "
            "none; make a step before"
        )


class CudaStep:
    """One update as a function of x and y, without waiting for the device."""

    def __init__(self, model: Any, mean: bool, watch: Any, optimizer: Any, check: Any) -> None:
        """Of a ``NativeModel``; ``check(x, y)`` raises what native code does not take."""
        self._model, self._mean, self._watch = model, mean, watch
        self._optimizer, self._check = optimizer, check

    def __call__(self, x: Tensor, y: Tensor) -> Tensor | None:
        """The loss, or None, with nothing done, if what the step was made from has changed."""
        optimizer = self._optimizer
        if not self._watch.unchanged() or no_step(self._model, optimizer) is not None:
            return None
        self._check(x, y)
        kernel, names, parameters, flat = self._model
        problem = checked(Problem(kernel, names, parameters, x, y, None, self._mean, flat))
        rule = rule_of(optimizer)
        if _captured(x):
            _expect_repeatable(rule, self._model, optimizer)
        held = optimizer.param_groups, optimizer.state
        loop = CudaLoop(problem, rule, *held, 1, stops=False)
        loop.put(1)
        mark_stepped(optimizer)
        return loop.losses.reshape(())
