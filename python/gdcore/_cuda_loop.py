"""Full-batch loops on CUDA: a problem, an optimizer's groups and state, and the launches."""

from collections.abc import MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _checks, _cuda_ops

_Group = dict[str, Any]
_States = MutableMapping[Tensor, dict[str, Any]]
_KINDS = {
    "sgd": _cuda_ops.native.Kind.SGD,
    "rmsprop": _cuda_ops.native.Kind.RMSprop,
    "adam": _cuda_ops.native.Kind.Adam,
}


class CudaLoop(NamedTuple):
    """What `train_cuda` has put on the stream, still on the device.

    Args:
        losses: of each epoch, before its update; undefined after the epoch in ``status``.
        status: -1, or the first epoch whose loss is not finite, at which the parameters stopped.
        previous: θ before the last update: the last finite values, where θ itself is not.
        records: θ after epochs 0, record_every, 2 record_every, …, or None.
    """

    losses: Tensor
    status: Tensor
    previous: Tensor
    records: Tensor | None


def train_cuda(
    kernel: str,
    parameters: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    mean: bool,
    rule: str,
    groups: Sequence[_Group],
    state: _States,
    epochs: int,
    *,
    stops: bool = True,
    record_every: int = 0,
) -> CudaLoop:
    """Put so many full-batch epochs on the current stream; parameters and state are updated there.

    One launch where one block is enough, else two an epoch. Nothing waits for the device: whoever
    reads ``status`` does. The state's counts of steps, which are on the CPU, move on by
    ``epochs`` at once; `finish` takes back those that a divergence has left out.

    Args:
        kernel: ``"linear"``, ``"polynomial"`` or ``"legendre"``.
        parameters: in θ's order: weight and bias, coefficients, or a, b, c, d. Contiguous.
        x: the kernel's input.
        y: target.
        weight: a loss weight for each element of ``y``, or None.
        mean: whether the loss is Σ w r² / Σ w, else Σ w r².
        rule: ``"sgd"``, ``"rmsprop"`` or ``"adam"``.
        groups: an optimizer's, or such as name other parameters than its own.
        state: the optimizer's, or another, by parameter; made where there is none.
        epochs: how many.
        stops: whether a loss that is not finite ends the loop.
        record_every: record θ after every so many epochs; 0 for never.

    Raises:
        TypeError: dtypes differ, or are none of the kernels'.
        ValueError: shapes or devices differ; what `unsuited` says of model and optimizer.
    """
    reason = unsuited(kernel, parameters, x, groups)
    if reason is not None:
        raise ValueError(reason)
    names = [f"parameters[{i}]" for i in range(len(parameters))]
    tensors: list[Tensor | None] = [x, y, weight, *parameters]
    _checks.any_dtype(["x", "y", "weight", *names], tensors)
    _check_shapes(kernel, parameters, x, y, weight)
    settings = [_Settings.of(rule, _group_of(groups, p), state.get(p, {})) for p in parameters]
    status = torch.full((), -1, dtype=torch.int64, device=x.device)
    losses = x.new_empty(epochs)
    count = sum(p.numel() for p in parameters)
    previous = torch.cat([p.detach().reshape(-1) for p in parameters])
    records = x.new_empty(-(-epochs // record_every), count) if record_every > 0 else None
    states = [own.tensors(state, p) for own, p in zip(settings, parameters, strict=True)]
    data = (x, y, weight)
    written = [*parameters, *(s for own in states for s in own if s is not None)]
    torch.autograd.graph.increment_version(written)
    _cuda_ops.native.train(
        _cuda_ops.MODELS[kernel],
        *data,
        [p.detach() for p in parameters],
        mean,
        _KINDS[rule],
        [own.numbers for own in settings],
        states,
        0,
        epochs,
        stops,
        losses,
        status,
        previous,
        records,
        max(record_every, 1),
        _cuda_ops.scratch(kernel, data, parameters, mean and weight is not None),
    )
    if epochs > 0:
        _count(state, parameters, epochs)
    return CudaLoop(losses, status, previous, records)


def finish(loop: CudaLoop, parameters: Sequence[Tensor], state: _States) -> int | None:
    """Wait for a loop; after a divergence, put back the last finite θ and say at which epoch."""
    epoch = int(loop.status.item())
    if epoch < 0:
        return None
    _count(state, parameters, epoch - len(loop.losses))
    if not all(bool(p.isfinite().all()) for p in parameters):
        sizes = [p.numel() for p in parameters]
        with torch.no_grad():
            for p, before in zip(parameters, loop.previous.split(sizes), strict=True):
                p.copy_(before.view_as(p))
    return epoch


def unsuited(
    kernel: str, parameters: Sequence[Tensor], x: Tensor, groups: Sequence[_Group]
) -> str | None:
    """Why `train_cuda` does not take a model with these groups, or None where it does."""
    if not x.is_cuda:
        return f"x: expected a CUDA tensor, got one on {x.device}"
    if kernel not in _cuda_ops.MODELS:
        return f"kernel: expected one of {', '.join(_cuda_ops.MODELS)}, got {kernel}"
    if kernel == "linear" and (x.dim() != 2 or not _cuda_ops.linear_fits(x, parameters[0])):
        shapes = f"x of {tuple(x.shape)} and weight of {tuple(parameters[0].shape)}"
        return f"x: expected rows and outputs of a linear model that has a kernel, got {shapes}"
    if len(parameters) > 4 or not all(p.is_contiguous() for p in parameters):
        return "parameters: expected at most four contiguous tensors"
    for p in parameters:
        group = _group_of(groups, p)
        if group is None:
            return "optimizer: expected one that holds all parameters of the model"
        if any(isinstance(v, Tensor) for v in (group["lr"], *group.get("betas", ()))):
            return "optimizer: expected a rate and betas that are numbers, not tensors"
        if group.get("capturable") or group.get("differentiable") or group.get("fused"):
            return "optimizer: expected capturable, differentiable and fused to be off"
    return None


def _group_of(groups: Sequence[_Group], parameter: Tensor) -> _Group | None:
    for group in groups:
        if any(p is parameter for p in group["params"]):
            return group
    return None


def _check_shapes(
    kernel: str, parameters: Sequence[Tensor], x: Tensor, y: Tensor, weight: Tensor | None
) -> None:
    if kernel == "linear":
        bias = parameters[1] if len(parameters) > 1 else None
        _checks.linear_mse(x, parameters[0], bias, y, weight)
    elif kernel == "polynomial":
        _checks.polynomial_mse(x, parameters[0], y, weight, max_degree=_cuda_ops.native.max_degree)
    else:
        a, b, c, d = parameters
        _checks.legendre_mse(x, a, b, c, d, y, weight)


class _Settings(NamedTuple):
    """One parameter's, in the order of ``csrc/cuda/arguments.h``, and the names of its states."""

    numbers: list[float]
    states: tuple[str | None, str | None, str | None]
    counts: bool

    @classmethod
    def of(cls, rule: str, group: _Group | None, own: dict[str, Any]) -> "_Settings":
        assert group is not None

        def numbers(*names: str) -> list[float]:
            return [float(group[name]) for name in names]

        steps = float(own["step"]) if "step" in own else 0.0
        if rule == "sgd":
            found = numbers("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
            fresh = own.get("momentum_buffer") is None
            buffer = "momentum_buffer" if group["momentum"] != 0 else None
            return cls([*found, 0.0, 0.0, float(fresh)], (buffer, None, None), False)
        if rule == "rmsprop":
            found = numbers("lr", "alpha", "eps", "weight_decay", "momentum", "maximize")
            buffer = "momentum_buffer" if group["momentum"] > 0 else None
            average = "grad_avg" if group["centered"] else None
            return cls([*found, 0.0, 0.0, steps], ("square_avg", buffer, average), True)
        rest = numbers("eps", "weight_decay", "decoupled_weight_decay", "maximize")
        single = isinstance(group["lr"], Tensor) and group["lr"].dtype != torch.float64
        found = [*numbers("lr"), float(single), *map(float, group["betas"]), *rest, steps]
        largest = "max_exp_avg_sq" if group["amsgrad"] else None
        return cls(found, ("exp_avg", "exp_avg_sq", largest), True)

    def tensors(self, state: _States, parameter: Tensor) -> list[Tensor | None]:
        """The states, made where there are none."""
        if not any(self.states):
            return [None, None, None]
        own = state.setdefault(parameter, {})
        if self.counts and "step" not in own:
            own["step"] = torch.tensor(0.0)
        for name in self.states:
            if name is not None and own.get(name) is None:
                own[name] = torch.zeros_like(parameter, requires_grad=False)
        return [None if name is None else own[name] for name in self.states]


def _count(state: _States, parameters: Sequence[Tensor], epochs: int) -> None:
    for p in parameters:
        step = state[p].get("step") if p in state else None
        if step is not None:
            step += epochs
