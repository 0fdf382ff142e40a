"""``step`` of each optimizer by itself: gradients are there already and stay the same."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gdcore
import limits
from agreement import UNIT_ROUNDOFF, Array, Expected, as_float64
from agreement import outcome as outcome_of
from case import Case, Check, Contender, Planned
from loops import BY_HAND, NUMPY

SUITE = "optim"
MILLION = 2**20
SIZES = {
    "2 small tensors": [10, 1],
    "1 tensor of 1M": [MILLION],
    "4 tensors of 4M": [4 * MILLION] * 4,
    "100 tensors of 1 024": [1024] * 100,
}
LR = 1e-4
CHECKED_STEPS = 3

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "gdcore.optim.SGD": gdcore.optim.SGD,
    "torch.optim.SGD": torch.optim.SGD,
    "torch.optim.SGD, foreach=True": functools.partial(torch.optim.SGD, foreach=True),
    "torch.optim.SGD, fused=True": functools.partial(torch.optim.SGD, fused=True),
    "gdcore.optim.RMSprop": gdcore.optim.RMSprop,
    "torch.optim.RMSprop": torch.optim.RMSprop,
    "torch.optim.RMSprop, foreach=True": functools.partial(torch.optim.RMSprop, foreach=True),
    "gdcore.optim.Adam": gdcore.optim.Adam,
    "torch.optim.Adam": torch.optim.Adam,
    "torch.optim.Adam, foreach=True": functools.partial(torch.optim.Adam, foreach=True),
    "torch.optim.Adam, fused=True": functools.partial(torch.optim.Adam, fused=True),
}


@dataclass(frozen=True)
class Kind:
    """An optimizer with its options, and the states that each of its steps reads."""

    optimizer: str
    options: dict[str, float]
    states: int

    @property
    def contenders(self) -> dict[str, Callable[..., torch.optim.Optimizer]]:
        names = (f"gdcore.optim.{self.optimizer}", f"torch.optim.{self.optimizer}")
        return {name: make for name, make in OPTIMIZERS.items() if name.split(",")[0] in names}


KINDS = {
    "SGD, plain": Kind("SGD", {"momentum": 0.0}, 0),
    "SGD, momentum": Kind("SGD", {"momentum": 0.9}, 1),
    "RMSprop": Kind("RMSprop", {}, 1),
    "Adam": Kind("Adam", {}, 2),
}


def cases(quick: bool) -> Iterator[Planned]:
    """A quick run leaves out the largest tensors."""
    for name, sizes in SIZES.items():
        for what, kind in KINDS.items():
            if not quick or max(sizes) <= MILLION:
                yield Planned(SUITE, f"{name}, {what}", functools.partial(case, sizes, kind))


@dataclass(frozen=True)
class Work:
    """Parameters that all contenders share, with gradients; each has its own states."""

    parameters: Sequence[Tensor]
    start: Sequence[Tensor]
    kind: Kind

    @classmethod
    def random(cls, sizes: Sequence[int], kind: Kind) -> Work:
        generator = torch.Generator().manual_seed(len(sizes))
        parameters = []
        for size in sizes:
            parameter = torch.nn.Parameter(torch.randn(size, generator=generator))
            parameter.grad = torch.randn(size, generator=generator)
            parameters.append(parameter)
        return cls(parameters, [p.detach().clone() for p in parameters], kind)

    @property
    def grads(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    @property
    def array_bytes(self) -> int:
        """All parameters; as much as all gradients, and as each state."""
        return sum(p.numel() * p.element_size() for p in self.parameters)

    @property
    def moved_bytes(self) -> int:
        """Parameters, gradients and states read, parameters and states written."""
        return (3 + 2 * self.kind.states) * self.array_bytes

    @torch.no_grad()
    def reset(self) -> None:
        for parameter, start in zip(self.parameters, self.start, strict=True):
            parameter.copy_(start)

    def expected(self, steps: int) -> Expected:
        step = {"SGD": _sgd, "RMSprop": _rmsprop, "Adam": _adam}[self.kind.optimizer]
        values, errors = [], []
        for start, grad in zip(self.start, self.grads, strict=True):
            p, g = as_float64(start), as_float64(grad)
            value, error = step(p, g, steps, **self.kind.options)
            values.append(value)
            errors.append(error)
        return Expected(None, 0.0, np.concatenate(values), np.concatenate(errors))


def _sgd(p: Array, g: Array, steps: int, momentum: float) -> tuple[Array, Array]:
    """Two roundings in each of the two lines of an update, and those of earlier steps."""
    u = UNIT_ROUNDOFF
    b, db, dp = np.zeros_like(g), np.zeros_like(g), np.zeros_like(g)
    for _ in range(steps):
        b = momentum * b + g
        db = momentum * db + 2 * u * (np.abs(b) + np.abs(g))
        dp += LR * db + 2 * u * (np.abs(p) + 2 * LR * np.abs(b))
        p = p - LR * b
    return p, dp


def _rmsprop(p: Array, g: Array, steps: int) -> tuple[Array, Array]:
    """Six roundings a step of v, whose terms are positive, and six more of g / (root + eps)."""
    u, alpha, eps = UNIT_ROUNDOFF, 0.99, 1e-8
    v, dp = np.zeros_like(g), np.zeros_like(g)
    for step in range(1, steps + 1):
        v = alpha * v + (1 - alpha) * g * g
        change = LR * g / (np.sqrt(v) + eps)
        dp += (3 * step + 6) * u * np.abs(change) + 2 * u * (np.abs(p) + np.abs(change))
        p = p - change
    return p, dp


def _adam(p: Array, g: Array, steps: int) -> tuple[Array, Array]:
    """The same; and what m rounds, of which no term is larger than g."""
    u, eps, first, second = UNIT_ROUNDOFF, 1e-8, 0.9, 0.999
    m, v, dp = np.zeros_like(g), np.zeros_like(g), np.zeros_like(g)
    for step in range(1, steps + 1):
        m = m + (1 - first) * (g - m)
        v = second * v + (1 - second) * g * g
        root = np.sqrt(v / (1 - second**step)) + eps
        scale = LR / (1 - first**step) / root
        dp += scale * 6 * step * u * np.abs(g) + (3 * step + 8) * u * scale * np.abs(m)
        dp += 2 * u * (np.abs(p) + scale * np.abs(m))
        p = p - scale * m
    return p, dp


def case(sizes: Sequence[int], kind: Kind) -> Case:
    work = Work.random(sizes, kind)
    contenders = contenders_of(work)
    expected = work.expected(CHECKED_STEPS)
    checks = [Check(contenders, CHECKED_STEPS, expected, f"at step {CHECKED_STEPS}")]
    arrays = (2 + work.kind.states) * work.array_bytes
    limit = limits.copy(work.array_bytes) if limits.past_cache(arrays) else None
    return Case(contenders, checks, "step", limit=limit, work=work.moved_bytes)


def contenders_of(work: Work) -> list[Contender]:
    """gdcore's first."""
    contenders = [_torch_like(work, name, make) for name, make in work.kind.contenders.items()]
    if work.kind.optimizer == "SGD":
        momentum = work.kind.options["momentum"]
        contenders += [_by_hand(work, momentum), _in_numpy(work, momentum)]
    return contenders


def peer_name(name: str) -> str:
    """``torch.optim`` with an option is called by the option, without one eager."""
    package, _, option = name.partition(", ")
    if package.startswith("gdcore"):
        return package
    return option.removesuffix("=True") or "eager"


def _contender(
    work: Work, name: str, step: Callable[[], Any], clear: Callable[[], object]
) -> Contender:
    def reset() -> None:
        work.reset()
        clear()

    return Contender(name, step, lambda _: outcome_of(None, *work.parameters), reset)


def _torch_like(work: Work, name: str, make: Callable[..., torch.optim.Optimizer]) -> Contender:
    optimizer = make(work.parameters, lr=LR, **work.kind.options)
    return _contender(work, peer_name(name), optimizer.step, optimizer.state.clear)


def _by_hand(work: Work, momentum: float) -> Contender:
    buffers = [torch.zeros_like(g) for g in work.grads]

    @torch.no_grad()
    def step() -> None:
        for parameter, buffer in zip(work.parameters, buffers, strict=True):
            grad = parameter.grad
            assert grad is not None
            if momentum:
                grad = buffer.mul_(momentum).add_(grad)
            parameter.add_(grad, alpha=-LR)

    return _contender(work, BY_HAND, step, lambda: [b.zero_() for b in buffers])


def _in_numpy(work: Work, momentum: float) -> Contender:
    arrays = [parameter.detach().numpy() for parameter in work.parameters]
    grads = [grad.numpy() for grad in work.grads]
    buffers = [np.zeros_like(grad) for grad in grads]

    def step() -> None:
        for parameter, grad, buffer in zip(arrays, grads, buffers, strict=True):
            change = grad
            if momentum:
                buffer *= momentum
                buffer += grad
                change = buffer
            parameter -= LR * change

    def clear() -> None:
        for buffer in buffers:
            buffer.fill(0)

    return _contender(work, NUMPY, step, clear)
