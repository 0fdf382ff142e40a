"""Runners of the native loop: over the rows themselves, or over the few that they compress to."""

from typing import Any, Protocol

import torch
from torch import Tensor

from .._optim.settings import plain
from .factor import compressed, singular_values
from .loop import NativeLoop, Ran, training_of
from .problem import Problem, StopRule, checked, expect_apart
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
            training = training_of(problem, problem.mean, optimizer, problem.index)
            groups = list(map(plain, optimizer.param_groups))
            training.check_run(problem.x, problem.y, problem.weight, groups, optimizer.state)
        else:
            problem = checked(problem)
            trained = zip(problem.names, problem.parameters, strict=True)
            expect_apart(problem, [pair for pair in trained if pair[1].requires_grad])
        self._outside = problem.parameters
        self._inside = tuple(
            torch.empty_like(p, dtype=torch.float64, device="cpu", requires_grad=False)
            for p in self._outside
        )
        self._seen: list[Tensor] | None = None
        self._state: dict[Tensor, dict[str, Any]] = {}
        self._states_seen: dict[tuple[int, str], Tensor] = {}
        self._shown = True
        self.rows = compressed(problem)._replace(parameters=self._inside)
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
        assert self._seen is not None
        held = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        shown = [
            (outside, inside, seen)
            for outside, inside, seen in zip(self._outside, self._inside, self._seen, strict=True)
            if outside.requires_grad and id(outside) in held
        ]
        if shown:
            outsides, insides, seens = zip(*shown, strict=True)
            with torch.no_grad():
                torch._foreach_copy_(outsides, insides)
                torch._foreach_copy_(seens, outsides)
        for outside, inside, _ in shown:
            values = self._state.get(inside)
            if not values:
                continue
            state = self._optimizer.state[outside]
            with torch.inference_mode(False):  # a state outlives the mode
                for key in [key for key in values if state.get(key) is None]:
                    like = values[key] if key == "step" else outside
                    state[key] = torch.empty_like(like, requires_grad=False)
            for key, value in values.items():
                state[key].copy_(value)
        self._states_seen = _copied(self._states_outside())
        self._shown = True

    @property
    def singular_values(self) -> Tensor:
        """Those of Φ, weighted and divided as the loss is, over the parameters that are trained.

        The loss is ``‖Φ θ - y‖²``, so its largest curvature is ``2 σ²``. In float64, descending.
        """
        rows, index = self.rows.x, self.rows.index
        assert index is not None
        trained = torch.cat(
            [rows.new_full((p.numel(),), p.requires_grad, dtype=torch.bool) for p in self._outside]
        )
        places = index.reshape(-1)
        if trained.all() and len(places) == len(trained) == len(set(places.tolist()) - {-1}):
            # Every output has parameters of its own over the same features.
            return singular_values(rows)
        matrix = rows.new_zeros(len(index), len(rows), len(trained) + 1)
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
        inside = {id(o): i for o, i in zip(self._outside, self._inside, strict=True)}
        return [
            {**group, "params": [inside[id(p)] for p in group["params"] if id(p) in inside]}
            for group in self._optimizer.param_groups
        ]

    def _take_over(self) -> None:
        """What the user has changed since it was last read or shown."""
        self._take_over_parameters()
        states, seen = self._states_outside(), self._states_seen
        if states.keys() == seen.keys() and all(_equal(states[name], seen[name]) for name in seen):
            return
        self._states_seen = _copied(states)
        self._state.clear()
        for (place, key), value in states.items():
            inside = self._state.setdefault(self._inside[place], {})
            inside[key] = value.detach().clone().cpu() if key == "step" else _doubled(value)

    def _take_over_parameters(self) -> None:
        for outside, inside in zip(self._outside, self._inside, strict=True):
            inside.requires_grad_(outside.requires_grad)
        with torch.no_grad():
            if self._seen is None:
                self._seen = [outside.clone() for outside in self._outside]
                torch._foreach_copy_(self._inside, self._seen)
                return
            for outside, inside, seen in zip(self._outside, self._inside, self._seen, strict=True):
                # By value: what is written through ``.data`` or NumPy moves no version on.
                if not torch.equal(outside, seen):
                    inside.copy_(outside)
                    seen.copy_(outside)

    def _states_outside(self) -> dict[tuple[int, str], Tensor]:
        """Every tensor of the optimizer's state, by its parameter's place and its own name."""
        return {
            (place, key): value
            for place, outside in enumerate(self._outside)
            for key, value in (self._optimizer.state.get(outside) or {}).items()
            if isinstance(value, Tensor)
        }


def _copied(states: dict[tuple[int, str], Tensor]) -> dict[tuple[int, str], Tensor]:
    return {name: value.detach().clone() for name, value in states.items()}


def _equal(one: Tensor, other: Tensor) -> bool:
    """By value: what is written through ``.data`` or NumPy moves no version on."""
    return (one.dtype, one.device) == (other.dtype, other.device) and torch.equal(one, other)


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.detach().to(
        "cpu", torch.float64, memory_format=torch.contiguous_format, copy=True
    )
