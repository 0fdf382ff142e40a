"""Loops on CUDA: a problem, an optimizer's groups and state, and the launches."""

from collections.abc import MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import cuda_ops as _cuda_ops
from .optimizers import not_native
from .problem import Problem

__all__ = ["CudaLoop", "in_one_block", "unsuited"]

_Group = dict[str, Any]
_States = MutableMapping[Tensor, dict[str, Any]]
_KINDS = {
    "sgd": _cuda_ops.native.Kind.SGD,
    "rmsprop": _cuda_ops.native.Kind.RMSprop,
    "adam": _cuda_ops.native.Kind.Adam,
}
_MOST_TENSORS = 4
_MOST_COUNTED = 2**24
"""Where torch's count of steps, a float32, stays."""


class CudaLoop:
    """Steps of one problem, put on the current stream as they are asked for; nothing waits.

    The settings are the optimizer's when the loop was made. Parameters and state are updated in
    place; the counts of steps in the state, which are on the CPU, move on at once, and `wait` takes
    back those that a divergence has left out.

    Args:
        problem: as `gdcore._native.problem.checked` returns it.
        rule: ``"sgd"``, ``"rmsprop"`` or ``"adam"``.
        groups: an optimizer's.
        state: the optimizer's, by parameter; what is missing is there once a step has been made.
        steps: how many there will be at most.
        stops: whether a loss that is not finite ends the loop.
        record_every: record θ after every so many steps; 0 for never.
        max_grad_norm: what the gradient's norm is clipped to, or None.
        norms: whether the gradient's norm is wanted.

    Attributes:
        losses: of each step, before its update; undefined after the one at which the loop ended.
        records: θ after steps 0, record_every, 2 record_every, …, or None.
        norms: of each step's gradient before it is clipped, over all that is trained, or None.
    """

    def __init__(
        self,
        problem: Problem,
        rule: str,
        groups: Sequence[_Group],
        state: _States,
        steps: int,
        *,
        stops: bool = True,
        record_every: int = 0,
        max_grad_norm: float | None = None,
        norms: bool = False,
    ) -> None:
        self._problem, self._kind, self._stops = problem, _KINDS[rule], stops
        parameters, x = problem.parameters, problem.x
        settings = [_Settings.of(rule, _group_of(groups, p), state.get(p, {})) for p in parameters]
        for own, p in zip(settings, parameters, strict=True):
            own.check(state.get(p, {}), p)
        self._numbers = [own.numbers for own in settings]
        self._missing = _Missing(state)
        self._states: list[list[Tensor | None]] = []
        self._counters: list[tuple[Tensor, float]] = []
        for own, p in zip(settings, parameters, strict=True):
            values = {**state.get(p, {}), **self._missing.made(own, p)}
            self._states.append([None if name is None else values[name] for name in own.states])
            if own.counts:
                self._counters.append((values["step"], float(values["step"])))
        self.losses = x.new_empty(steps)
        self.made = 0
        self._every = max(record_every, 1)
        self._status = self._previous = self.records = None
        if stops:
            self._status = torch.full((), -1, dtype=torch.int64, device=x.device)
            self._previous = torch.cat([p.detach().reshape(-1) for p in parameters])
        if record_every > 0:
            count = sum(p.numel() for p in parameters)
            self.records = x.new_empty(-(-steps // record_every), count)
        self._max_grad_norm = -1.0 if max_grad_norm is None else max_grad_norm
        self.norms = x.new_empty(steps, dtype=torch.float64) if norms else None
        self._index = () if problem.index is None else _both_ways(problem.index, parameters)
        self._scratch: Tensor | None = None

    def put(self, steps: int, batch: tuple[Tensor, Tensor, Tensor | None] | None = None) -> None:
        """So many steps more; of these rows, of which there are never more than at first."""
        problem = self._problem
        data = (problem.x, problem.y, problem.weight) if batch is None else batch
        if self._scratch is None:
            weighted = problem.mean and problem.weight is not None
            self._scratch = _cuda_ops.scratch(
                problem.kernel, data, problem.parameters, weighted, index=problem.index
            )
        torch.autograd.graph.increment_version(self.written)
        _cuda_ops.native.train(
            _cuda_ops.MODELS[problem.kernel],
            *data,
            [p.detach() for p in problem.parameters],
            self._index,
            problem.mean,
            self._kind,
            self._numbers,
            self._states,
            self.made,
            steps,
            self._stops,
            self.losses,
            self._status,
            self._previous,
            self.records,
            self._every,
            self._max_grad_norm,
            self.norms,
            self._scratch,
        )
        self._count(self.made + steps)

    @property
    def written(self) -> list[Tensor]:
        """The parameters that are trained, and all states."""
        trained = zip(self._problem.parameters, self._numbers, strict=True)
        states = (state for own in self._states for state in own if state is not None)
        return [*(p for p, numbers in trained if numbers), *states]

    def wait(self) -> int | None:
        """Until all is done; after a divergence, put back the last finite θ and say when it was."""
        if self._status is None or self._previous is None:
            return None
        at = int(self._status.item())
        if at < 0:
            return None
        self._count(at)
        parameters = self._problem.parameters
        if not all(bool(p.isfinite().all()) for p in parameters):
            sizes = [p.numel() for p in parameters]
            with torch.no_grad():
                for p, before in zip(parameters, self._previous.split(sizes), strict=True):
                    p.copy_(before.view_as(p))
        return at

    def go_back(self, made: int) -> None:
        """To where so many steps were made, parameters and states being put back by the caller."""
        self._count(made)
        if self._status is not None:
            self._status.fill_(-1)

    def _count(self, made: int) -> None:
        self.made = made
        self._missing.show(made > 0)
        for step, start in self._counters:
            count = start + made
            if step.dtype != torch.float64:
                count = max(min(count, _MOST_COUNTED), start)
            step.fill_(count)


def in_one_block(problem: Problem) -> bool:
    """Whether many epochs of it are one launch."""
    if problem.x.dtype.itemsize == 2:
        return False
    rows = problem.x.shape[0]
    if problem.kernel == "indexed":
        return False
    linear = problem.kernel == "linear"
    outputs, columns = problem.parameters[0].shape if linear else (1, 1)
    fits: bool = _cuda_ops.native.fits_one_block(rows, columns, outputs)
    return fits


def _both_ways(index: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The place of each weight; where each parameter's weights begin, and which they are."""
    places = index.reshape(-1)
    members = places.argsort(stable=True)
    ends = torch.arange(sum(p.numel() for p in parameters) + 1, device=index.device)
    starts = torch.searchsorted(places[members], ends)
    on = parameters[0].device
    return index.contiguous().to(on), starts.to(on), members.to(on)


def unsuited(
    kernel: str,
    parameters: Sequence[Tensor],
    groups: Sequence[_Group],
    indexed: tuple[int, int] | None = None,
) -> str | None:
    """Why a `CudaLoop` does not take a model with these groups, or None where it does.

    An indexed model has so many outputs and columns.
    """
    shape = tuple(parameters[0].shape) if kernel == "linear" else indexed
    if shape is not None and not _cuda_ops.linear_fits(shape, parameters[0].dtype):
        return f"model: expected at most 512 columns and 16 outputs on CUDA, got weight of {shape}"
    if len(parameters) > _MOST_TENSORS:
        return f"model: expected at most {_MOST_TENSORS} parameters on CUDA, got {len(parameters)}"
    if not all(p.is_contiguous() for p in parameters):
        return "model: expected contiguous parameters on CUDA"
    if all(_group_of(groups, p) is None for p in parameters):
        return "optimizer: expected to hold a parameter of model that requires grad, got none"
    return not_native(groups)


def _group_of(groups: Sequence[_Group], parameter: Tensor) -> _Group | None:
    """None for a parameter that is not trained."""
    if not parameter.requires_grad:
        return None
    for group in groups:
        if any(p is parameter for p in group["params"]):
            return group
    return None


class _Settings(NamedTuple):
    """One parameter's, in the order of ``csrc/cuda/arguments.h``, and the names of its states."""

    numbers: list[float]
    """Empty for a parameter that is frozen."""
    states: tuple[str | None, str | None, str | None]
    counts: bool = False
    fused: bool = False
    """Whether torch counts the steps on the device."""

    @classmethod
    def of(cls, rule: str, group: _Group | None, own: dict[str, Any]) -> "_Settings":
        if group is None:
            return cls([], (None, None, None))

        def numbers(*names: str) -> list[float]:
            return [float(group[name]) for name in names]

        steps = float(own["step"]) if "step" in own else 0.0
        if rule == "sgd":
            found = numbers("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
            fresh = own.get("momentum_buffer") is None
            buffer = "momentum_buffer" if group["momentum"] != 0 else None
            return cls([*found, 0.0, 0.0, float(fresh)], (buffer, None, None))
        if rule == "rmsprop":
            found = numbers("lr", "alpha", "eps", "weight_decay", "momentum", "maximize")
            buffer = "momentum_buffer" if group["momentum"] > 0 else None
            average = "grad_avg" if group["centered"] else None
            return cls([*found, 0.0, 0.0, steps], ("square_avg", buffer, average), True)
        rest = numbers("eps", "weight_decay", "decoupled_weight_decay", "maximize")
        single = isinstance(group["lr"], Tensor) and group["lr"].dtype != torch.float64
        found = [*numbers("lr"), float(single), *map(float, group["betas"]), *rest, steps]
        largest = "max_exp_avg_sq" if group["amsgrad"] else None
        return cls(found, ("exp_avg", "exp_avg_sq", largest), True, bool(group.get("fused")))

    def check(self, own: dict[str, Any], parameter: Tensor) -> None:
        """That what states there are lie in memory as the parameter does."""
        for name in self.states:
            state = None if name is None else own.get(name)
            if state is not None and not (
                state.is_contiguous()
                and (state.shape, state.dtype) == (parameter.shape, parameter.dtype)
                and state.device == parameter.device
            ):
                raise ValueError(
                    f"optimizer: expected {name} contiguous, of shape {tuple(parameter.shape)} and "
                    f"{parameter.dtype}, on {parameter.device} as its parameter, got shape "
                    f"{tuple(state.shape)}, {state.dtype}, on {state.device}"
                )

    def fresh(self, own: dict[str, Any], parameter: Tensor) -> dict[str, Tensor]:
        """The states that there are not, as torch makes them."""
        found = {}
        if self.counts and "step" not in own:
            double = torch.get_default_dtype() == torch.float64
            found["step"] = torch.zeros(
                (),
                dtype=torch.float64 if double and not self.fused else torch.float32,
                device=parameter.device if self.fused else "cpu",
            )
        for name in self.states:
            if name is not None and own.get(name) is None:
                found[name] = torch.zeros_like(parameter, requires_grad=False)
        return found


class _Missing:
    """The states that an optimizer has not, which it gets with the first step that is made."""

    def __init__(self, state: _States) -> None:
        self._state = state
        self._made: list[tuple[Tensor, dict[str, Tensor], dict[str, Any] | None]] = []
        self._shown = False

    def made(self, own: _Settings, parameter: Tensor) -> dict[str, Tensor]:
        before = self._state.get(parameter)
        with torch.inference_mode(False):  # they outlive whatever mode this is
            fresh = own.fresh(before or {}, parameter)
        if fresh:
            self._made.append((parameter, fresh, None if before is None else dict(before)))
        return fresh

    def show(self, there: bool) -> None:
        """Have the optimizer hold them, or what it held before."""
        if there == self._shown:
            return
        self._shown = there
        for parameter, fresh, before in self._made:
            if there:
                self._state.setdefault(parameter, {}).update(fresh)
            elif before is None:
                del self._state[parameter]
            else:
                own = self._state[parameter]
                own.clear()
                own.update(before)
