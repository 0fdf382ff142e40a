"""Runners of the native loop: over the rows themselves, or over the few that they compress to."""

from typing import Any, Protocol

import torch
from torch import Tensor

from .factor import compressed, singular_values
from .loop import NativeLoop, Ran
from .optimizers import fresh_state
from .problem import Problem, StopRule, checked
from .shuffle import Order
from .stability import largest_stable_lr, surely_stable

__all__ = ["CompressedRunner", "Ran", "Runner", "StepwiseRunner"]


class Runner(Protocol):
    """Trains one problem with one optimizer.

    However many epochs are asked for at a time, the result is the same. Settings of the optimizer
    are read anew at each run.
    """

    method: str

    def run(
        self,
        epochs: int,
        *,
        record_every: int = 0,
        order: Order | None = None,
        batch_size: int | None = None,
        stop: StopRule | None = None,
    ) -> Ran:
        """Train, or say why not to the end.

        Args:
            epochs: how many, with the full batch. In minibatches a run is one epoch.
            record_every: keep θ after the update of every so many epochs, from the first; 0 for
                never.
            order: the rows of an epoch in minibatches; all as they lie, if there is none.
            batch_size: rows in a minibatch; the last may have fewer.
            stop: when to stop before that.
        """
        ...

    def show(self) -> None:
        """Put what is held inside into the user's parameters and optimizer state."""
        ...

    @property
    def largest_stable_lr(self) -> float | None:
        """The largest rate with which this problem converges, where it is known."""
        ...

    def surely_stable(self, rate: float) -> bool:
        """Whether a bound that is had in one pass says that a rate is below the largest."""
        ...


class StepwiseRunner:
    """Every step passes over its rows: parameters are rounded to their dtype each time."""

    method = "stepwise"

    def __init__(
        self,
        problem: Problem,
        optimizer: torch.optim.Optimizer,
        *,
        max_grad_norm: float | None = None,
    ) -> None:
        self._problem, self._optimizer, self._clip = problem, optimizer, max_grad_norm
        self._loop = NativeLoop(problem, optimizer, max_grad_norm, problem.x.dtype)

    def run(
        self,
        epochs: int,
        *,
        record_every: int = 0,
        order: Order | None = None,
        batch_size: int | None = None,
        stop: StopRule | None = None,
    ) -> Ran:
        optimizer = self._optimizer
        groups, state = optimizer.param_groups, optimizer.state
        ran = self._loop(groups, state, epochs, record_every, order, batch_size, stop)
        if ran.updates > 0:
            mark_stepped(optimizer)
        return ran

    def show(self) -> None:
        """Nothing is held inside."""

    @property
    def largest_stable_lr(self) -> float | None:
        return stepwise_limit(self._problem, self._optimizer, self._clip)

    def surely_stable(self, rate: float) -> bool:
        return surely_stable(self._problem, self._optimizer, rate, self._clip)


def stepwise_limit(
    problem: Problem, optimizer: torch.optim.Optimizer, clip: float | None
) -> float | None:
    """The largest stable rate of the rows compressed, which takes a factorisation."""
    if problem.kernel == "legendre" or largest_stable_lr(optimizer, 1.0) is None:
        return None
    weight = problem.weight
    if weight is not None and not bool((weight >= 0).all()):
        return None
    return CompressedRunner(problem, optimizer, max_grad_norm=clip).largest_stable_lr


def mark_stepped(optimizer: Any) -> None:
    """torch's learning-rate schedulers look at this to see that the optimizer has stepped."""
    optimizer._opt_called = True


class CompressedRunner:
    """The full batch as a few rows that have its loss, gradient and curvature for every θ.

    Parameters and optimizer state are held in float64 from the first run on, whatever the user's
    dtype, and on the CPU, whatever the device: no launch is as short as an epoch over a few rows.
    What the user changes between runs, in the tensors or the optimizer's state, is taken over.

    Raises:
        ValueError: a model that is not affine in its parameters, or a negative weight.
    """

    method = "compressed"

    def __init__(
        self,
        problem: Problem,
        optimizer: torch.optim.Optimizer,
        *,
        max_grad_norm: float | None = None,
    ) -> None:
        self._problem = problem
        self._optimizer: Any = optimizer
        self._clip = max_grad_norm
        dtype = problem.parameters[0].dtype
        if problem.x.is_cpu:
            # What is wrong with the data is said as it is said of those that are not compressed.
            plain = NativeLoop(problem, optimizer, max_grad_norm, dtype)
            plain(optimizer.param_groups, optimizer.state, 0, 0, None, None, None)
        else:
            problem = checked(problem)
        self._inside = [_Held(parameter) for parameter in problem.parameters]
        self._state: dict[Tensor, dict[str, Any]] = {}
        self._state_seen: Any = None
        self._shown = True
        parameters = tuple(held.inside for held in self._inside)
        self.rows = compressed(problem)._replace(parameters=parameters)
        """The few rows: a problem of its own, whose loss is the sum."""
        self._loop = NativeLoop(self.rows, optimizer, max_grad_norm, dtype)
        if not problem.x.is_cpu:
            self._loop(self._groups(), {}, 0, 0, None, None, None)  # what the optimizer asks for

    def run(
        self,
        epochs: int,
        *,
        record_every: int = 0,
        order: Order | None = None,
        batch_size: int | None = None,
        stop: StopRule | None = None,
    ) -> Ran:
        if order is not None or batch_size is not None:
            raise ValueError("method: expected the full batch for 'compressed', got minibatches")
        self._take_over()
        ran = self._loop(self._groups(), self._state, epochs, record_every, None, None, stop)
        if ran.updates > 0:
            self._shown = False
            self._optimizer._opt_called = True
        return ran

    def show(self) -> None:
        if self._shown:
            return
        groups = {id(p): group for group in self._optimizer.param_groups for p in group["params"]}
        for held in self._inside:
            values = self._state.get(held.inside)
            if not held.outside.requires_grad or id(held.outside) not in groups:
                continue
            held.show()
            if not values:
                continue
            state = self._optimizer.state[held.outside]
            if any(state.get(key) is None for key in values):
                group = groups[id(held.outside)]
                state.update(fresh_state(self._optimizer, group, held.outside))
            for key, value in values.items():
                state[key].copy_(value)
        self._state_seen = self._states_outside()
        self._shown = True

    @property
    def singular_values(self) -> Tensor:
        """Those of Φ, weighted and divided as the loss is, over the parameters that are trained.

        The loss is ``‖Φ θ - y‖²``, so its largest curvature is ``2 σ²``. In float64, descending.
        """
        trained = torch.cat(
            [
                torch.full((held.outside.numel(),), held.outside.requires_grad)
                for held in self._inside
            ]
        )
        rows, index = self.rows.x, self.rows.index
        assert index is not None
        places = index.reshape(-1)
        if trained.all() and len(places) == len(trained) == len(set(places.tolist()) - {-1}):
            # Every output has parameters of its own over the same features.
            return singular_values(rows)
        matrix = torch.zeros(len(index), len(rows), len(trained) + 1, dtype=torch.float64)
        for output, columns in zip(matrix, index, strict=True):
            output.index_add_(1, columns % (len(trained) + 1), rows)
        return singular_values(matrix[..., :-1].reshape(-1, len(trained))[:, trained])

    @property
    def largest_stable_lr(self) -> float | None:
        """The largest rate with which this problem converges, where it is known."""
        if self._clip is not None:
            return None
        if not self.rows.x.isfinite().all():
            return None
        values = self.singular_values
        curvature = 2 * values[0].item() ** 2 if len(values) else 0.0
        return largest_stable_lr(self._optimizer, curvature)

    def surely_stable(self, rate: float) -> bool:
        return surely_stable(self.rows, self._optimizer, rate, self._clip)

    def _groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups, of what is held inside."""
        inside = {id(held.outside): held.inside for held in self._inside}
        return [
            {**group, "params": [inside[id(p)] for p in group["params"] if id(p) in inside]}
            for group in self._optimizer.param_groups
        ]

    def _take_over(self) -> None:
        """What the user has changed since it was last read or shown."""
        for held in self._inside:
            held.take_over()
        seen = self._states_outside()
        if seen == self._state_seen:
            return
        self._state_seen = seen
        self._state.clear()
        for held in self._inside:
            values = self._optimizer.state.get(held.outside)
            if values:
                self._state[held.inside] = {
                    key: value.detach().clone().cpu() if key == "step" else _doubled(value)
                    for key, value in values.items()
                    if isinstance(value, Tensor)
                }

    def _states_outside(self) -> list[tuple[int, int]]:
        states = [self._optimizer.state.get(held.outside) or {} for held in self._inside]
        return [
            _mark(value)
            for values in states
            for value in values.values()
            if isinstance(value, Tensor)
        ]


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.detach().to(
        "cpu", torch.float64, memory_format=torch.contiguous_format, copy=True
    )


def _mark(tensor: Tensor) -> tuple[int, int]:
    """What changes when a tensor is written or replaced."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


class _Held:
    """A parameter of the user's, and what it is in float64."""

    def __init__(self, outside: Tensor) -> None:
        self.outside = outside
        self.inside = _doubled(outside)
        self._seen = outside.detach().clone()

    def take_over(self) -> None:
        self.inside.requires_grad_(self.outside.requires_grad)
        now = self.outside.detach()
        # By value: what is written through ``.data`` or NumPy moves no version on.
        if not torch.equal(now, self._seen):
            self.inside.detach().copy_(now)
            self._seen.copy_(now)

    def show(self) -> None:
        with torch.no_grad():
            self.outside.copy_(self.inside)
        self._seen.copy_(self.outside.detach())
