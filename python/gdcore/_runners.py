"""The native loops over epochs: what they give back, and how they carry the optimizer's state."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from . import _ops
from ._problem import Problem, StopRule
from ._seen import Seen
from .stopping import RuleState

__all__ = ["Ran", "Runner", "StepwiseRunner"]


@dataclass
class Ran:
    """What a run did."""

    losses: Tensor
    """Of each epoch, before its update; for minibatches the mean over the epoch's rows."""
    step_losses: Tensor | None
    records: Tensor | None
    epochs: int
    outcome: str
    """``"finished"``, ``"stopped"``, ``"diverged"`` or ``"interrupted"``."""
    raised: BaseException | None = None


class Runner(Protocol):
    """What runs epochs, from where the parameters and the optimizer's state are."""

    method: str

    def run(
        self,
        epochs: int,
        *,
        record_every: int = 0,
        order: Tensor | None = None,
        batch_size: int | None = None,
        stop: StopRule | None = None,
    ) -> Ran: ...

    def show(self) -> None: ...


class StepwiseRunner:
    """Steps of SGD over all rows, or over gathered batches of them."""

    method = "stepwise"
    weights = False
    """Whether rows may have weights, and gradients a norm that is looked at."""

    def __init__(
        self, problem: Problem, optimizer: torch.optim.Optimizer, *, max_grad_norm: float | None
    ) -> None:
        if problem.weight is not None or max_grad_norm is not None:
            raise NotImplementedError("weights per row and clipping are not native yet")
        self._problem = problem
        self._optimizer = optimizer
        self._rule: RuleState | None = None

    def show(self) -> None:
        """Nothing to do: the parameters hold the state."""

    def run(
        self,
        epochs: int,
        *,
        record_every: int = 0,
        order: Tensor | None = None,
        batch_size: int | None = None,
        stop: StopRule | None = None,
    ) -> Ran:
        x, y = self._problem.x, self._problem.y
        if order is not None:
            return self._minibatches(order.split(batch_size or len(order)))
        if stop is None:
            return self._steps(x, y, epochs, record_every)
        if stop.gradient_norm_below is not None:
            raise NotImplementedError("gradient_norm_below is not native yet")
        if self._rule is None:
            self._rule = RuleState(stop)
        whole = Ran(torch.empty(0, dtype=x.dtype), None, None, 0, "finished")
        for epoch in range(epochs):
            before = [p.detach().clone() for p in self._problem.parameters]
            every = record_every if record_every and epoch % record_every == 0 else 0
            ran = self._steps(x, y, 1, every)
            whole.losses = torch.cat([whole.losses, ran.losses])
            whole.epochs += ran.epochs
            whole.outcome, whole.raised = ran.outcome, ran.raised
            if ran.outcome == "finished" and self._rule.holds(ran.losses[-1].item()):
                for parameter, values in zip(self._problem.parameters, before, strict=True):
                    parameter.detach().copy_(values)
                whole.outcome = "stopped"
            elif ran.records is not None:
                kept = [] if whole.records is None else [whole.records]
                whole.records = torch.cat([*kept, ran.records])
            if whole.outcome != "finished":
                break
        return whole

    def _minibatches(self, batches: tuple[Tensor, ...]) -> Ran:
        losses: list[float] = []
        x, y = self._problem.x, self._problem.y
        for rows in batches:
            ran = self._steps(x[rows], y[rows], 1, 0)
            losses += ran.losses.tolist()
            if ran.outcome != "finished":
                break
        taken = [len(rows) for rows in batches[: len(losses)]]
        mean = sum(n * loss for n, loss in zip(taken, losses, strict=True)) / max(sum(taken), 1)
        whole = 0 if ran.outcome == "interrupted" else 1
        return Ran(
            torch.tensor([mean][:whole], dtype=x.dtype, device="cpu"),
            torch.tensor(losses, dtype=x.dtype, device="cpu"),
            None,
            int(ran.outcome == "finished"),
            ran.outcome,
            ran.raised,
        )

    def _steps(self, x: Tensor, y: Tensor, epochs: int, record_every: int) -> Ran:
        parameters = self._problem.parameters
        momenta: list[Tensor | None] = [None] * len(parameters)
        written: list[Tensor] = []
        fresh: list[tuple[Tensor, Tensor]] = []
        settings = []
        seen = Seen()
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                index = next((i for i, p in enumerate(parameters) if p is parameter), None)
                if index is None or not parameter.requires_grad:
                    continue
                written.append(parameter)
                momentum = seen.number(group, "momentum")
                begins = False
                if momentum != 0:
                    buffer = self._optimizer.state.get(parameter, {}).get("momentum_buffer")
                    begins = buffer is None
                    if buffer is None:
                        with torch.inference_mode(False):
                            buffer = torch.empty_like(parameter, requires_grad=False)
                        fresh.append((parameter, buffer))
                    momenta[index] = buffer
                    written.append(buffer)
                numbers = [seen.number(group, k) for k in ("lr", "dampening", "weight_decay")]
                flags = group["nesterov"], group["maximize"], begins
                settings.append((index, numbers[0], momentum, *numbers[1:], *flags))
        kernel, flat, mean = self._problem.kernel, self._problem.flat, self._problem.mean
        training = _ops.Training(kernel, flat, parameters, momenta, settings, mean)
        losses = torch.empty(epochs, dtype=x.dtype, device="cpu")
        count = -(-epochs // record_every) if record_every else 0
        size = sum(parameter.numel() for parameter in parameters)
        records: Any = torch.empty((count, size), dtype=x.dtype, device="cpu") if count else None
        threads = torch.get_num_threads()
        done, outcome, raised = training.run(
            x, y, losses, epochs, record_every, records, True, threads
        )
        updates = done - 1 if outcome == "diverged" else done
        if updates > 0:
            for parameter, buffer in fresh:
                self._optimizer.state[parameter]["momentum_buffer"] = buffer
            torch.autograd.graph.increment_version(written)
            self._optimizer._opt_called = True  # type: ignore[attr-defined]
        if records is not None:
            records = records[: -(-updates // record_every)]
        return Ran(losses[:done], None, records, done, outcome, raised)
