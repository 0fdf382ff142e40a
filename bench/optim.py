"""``optim.SGD.step`` by itself: gradients are there already and stay the same."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gdcore
from agreement import UNIT_ROUNDOFF, Expected, as_float64
from agreement import outcome as outcome_of
from timing import Case, Check, Contender, Planned

SUITE = "optim"
MILLION = 2**20
SIZES = {
    "1 tensor of 1M": [MILLION],
    "4 tensors of 1M to 16M": [MILLION, 4 * MILLION, 8 * MILLION, 16 * MILLION],
    "100 tensors of 1 024": [1024] * 100,
}
MOMENTA = {"plain": 0.0, "momentum": 0.9}
LR = 1e-4
CHECKED_STEPS = 3
NOTE = "Bytes are those that must be read; the parameters and buffers written come on top."

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "gdcore.optim.SGD": gdcore.optim.SGD,
    "torch.optim.SGD": torch.optim.SGD,
    "torch.optim.SGD, foreach=True": functools.partial(torch.optim.SGD, foreach=True),
    "torch.optim.SGD, fused=True": functools.partial(torch.optim.SGD, fused=True),
}


def cases(quick: bool) -> Iterator[Planned]:
    """A quick run has tensors of 1M to 2M instead of 16M."""
    for name, sizes in SIZES.items():
        for kind, momentum in MOMENTA.items():
            largest = 2 * MILLION if quick else max(sizes)
            build = functools.partial(case, [min(size, largest) for size in sizes], momentum)
            yield Planned(SUITE, f"{name}, {kind}", build)


@dataclass(frozen=True)
class Work:
    """Parameters that all contenders share, with gradients; each has its own momentum buffers."""

    parameters: Sequence[Tensor]
    start: Sequence[Tensor]
    momentum: float

    @classmethod
    def random(cls, sizes: Sequence[int], momentum: float) -> Work:
        generator = torch.Generator().manual_seed(len(sizes))
        parameters = []
        for size in sizes:
            parameter = torch.nn.Parameter(torch.randn(size, generator=generator))
            parameter.grad = torch.randn(size, generator=generator)
            parameters.append(parameter)
        return cls(parameters, [p.detach().clone() for p in parameters], momentum)

    @property
    def grads(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    @property
    def read_bytes(self) -> int:
        """Parameters, gradients and momentum buffers; what is written comes on top."""
        arrays = 2 if self.momentum == 0 else 3
        return arrays * sum(p.numel() * p.element_size() for p in self.parameters)

    @torch.no_grad()
    def reset(self) -> None:
        for parameter, start in zip(self.parameters, self.start, strict=True):
            parameter.copy_(start)

    def expected(self, steps: int) -> Expected:
        """Two roundings in each of the two lines of an update, and those of earlier steps."""
        u, values, errors = UNIT_ROUNDOFF, [], []
        for start, grad in zip(self.start, self.grads, strict=True):
            p, g = as_float64(start), as_float64(grad)
            b, db, dp = np.zeros_like(g), np.zeros_like(g), np.zeros_like(g)
            for _ in range(steps):
                b = self.momentum * b + g
                db = self.momentum * db + 2 * u * (np.abs(b) + np.abs(g))
                dp += LR * db + 2 * u * (np.abs(p) + 2 * LR * np.abs(b))
                p = p - LR * b
            values.append(p)
            errors.append(dp)
        return Expected(None, 0.0, np.concatenate(values), np.concatenate(errors))


def case(sizes: Sequence[int], momentum: float) -> Case:
    work = Work.random(sizes, momentum)
    contenders = [_torch_like(work, name, make) for name, make in OPTIMIZERS.items()]
    contenders += [_by_hand(work), _in_numpy(work)]
    expected = work.expected(CHECKED_STEPS)
    checks = [Check(contenders, CHECKED_STEPS, expected, f"at step {CHECKED_STEPS}")]
    return Case(contenders, checks, "step", read_bytes=work.read_bytes, note=NOTE)


def _contender(
    work: Work, name: str, step: Callable[[], Any], clear: Callable[[], object]
) -> Contender:
    def reset() -> None:
        work.reset()
        clear()

    return Contender(name, step, lambda _: outcome_of(None, *work.parameters), reset)


def _torch_like(work: Work, name: str, make: Callable[..., torch.optim.Optimizer]) -> Contender:
    optimizer = make(work.parameters, lr=LR, momentum=work.momentum)
    return _contender(work, name, optimizer.step, optimizer.state.clear)


def _by_hand(work: Work) -> Contender:
    momentum, buffers = work.momentum, [torch.zeros_like(g) for g in work.grads]

    @torch.no_grad()
    def step() -> None:
        for parameter, buffer in zip(work.parameters, buffers, strict=True):
            grad = parameter.grad
            assert grad is not None
            if momentum:
                grad = buffer.mul_(momentum).add_(grad)
            parameter.add_(grad, alpha=-LR)

    return _contender(work, "no_grad, by hand", step, lambda: [b.zero_() for b in buffers])


def _in_numpy(work: Work) -> Contender:
    arrays = [parameter.detach().numpy() for parameter in work.parameters]
    grads = [grad.numpy() for grad in work.grads]
    buffers, momentum = [np.zeros_like(grad) for grad in grads], work.momentum

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

    return _contender(work, "NumPy", step, clear)
