"""Loops on CUDA: a problem, an optimizer's groups and state, and the launches."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import cuda_ops as _cuda_ops
from .cuda_states import Group, Missing, Settings, States, group_of
from .optimizers import not_native
from .problem import Problem, expect_apart

__all__ = ["CudaLoop", "both_ways", "in_one_block", "launches", "unsuited"]

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
        index: `both_ways` of an indexed problem's.

    Attributes:
        losses: of each step, before its update; undefined after the one at which the loop ended.
        records: θ after steps 0, record_every, 2 record_every, …, or None.
        norms: of each step's gradient before it is clipped, over all that is trained, or None.
    """

    def __init__(
        self,
        problem: Problem,
        rule: str,
        groups: Sequence[Group],
        state: States,
        steps: int,
        *,
        stops: bool = True,
        record_every: int = 0,
        max_grad_norm: float | None = None,
        norms: bool = False,
        index: Sequence[Tensor] = (),
    ) -> None:
        self._problem, self._kind, self._stops = problem, _KINDS[rule], stops
        parameters, x = problem.parameters, problem.x
        settings = [Settings.of(rule, group_of(groups, p), state.get(p, {})) for p in parameters]
        for own, p in zip(settings, parameters, strict=True):
            own.check(state.get(p, {}), p)
        self._settings = settings
        self._missing = Missing(state)
        self._states: list[list[Tensor | None]] = []
        self._counters: list[tuple[Tensor, float]] = []
        for own, p in zip(settings, parameters, strict=True):
            values = {**state.get(p, {}), **self._missing.made(own, p)}
            self._states.append([None if name is None else values[name] for name in own.states])
            if own.counts:
                self._counters.append((values["step"], float(values["step"])))
        expect_apart(problem, self._named())
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
        self._index = index
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
            [own.numbers for own in self._settings],
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
        return [tensor for _, tensor in self._named()]

    def _named(self) -> list[tuple[str, Tensor]]:
        found = []
        problem = self._problem
        held = zip(problem.names, problem.parameters, self._settings, self._states, strict=True)
        for name, parameter, own, states in held:
            if own.numbers:
                found.append((name, parameter))
            pairs = zip(own.states, states, strict=True)
            found += [(str(key), state) for key, state in pairs if state is not None]
        return found

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


def launches(
    kernel: str, parameters: Sequence[Tensor], rows: int, batch_size: int | None, by_norm: bool
) -> int:
    """How many a step is; 0 where one launch makes many of them."""
    if in_one_block(kernel, parameters, rows if batch_size is None else min(rows, batch_size)):
        return 0 if batch_size is None else 1
    return 3 if kernel == "indexed" or by_norm else 2


def in_one_block(kernel: str, parameters: Sequence[Tensor], rows: int) -> bool:
    """Whether many epochs of a model over so many rows are one launch."""
    if kernel == "indexed" or parameters[0].dtype.itemsize == 2:
        return False
    outputs, columns = parameters[0].shape if kernel == "linear" else (1, 1)
    fits: bool = _cuda_ops.native.fits_one_block(rows, columns, outputs)
    return fits


def both_ways(index: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
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
    groups: Sequence[Group],
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
    if all(group_of(groups, p) is None for p in parameters):
        return "optimizer: expected to hold a parameter of model that requires grad, got none"
    return not_native(groups)
