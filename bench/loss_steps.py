"""The parts under autograd at (32, 10), beside what autograd itself takes: an empty Function.

No loss that is a Function can be faster than one that computes nothing, nor a step than that one
with an optimizer that does nothing. These rows are floors, and are not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import linear_mse
from agreement import expected_descent, expected_gradient
from case import FLOOR, Case, Check, Contender, Planned
from linear import Problem
from linear_steps import PARTS, gradient_contenders, step_contenders
from loops import EAGER

SUITE = "loss_steps"
SIZE = (32, 10)
GRADIENT = "(32, 10), loss forward and backward"
STEP = "(32, 10), loss, zero_grad, backward and step"


class Empty(torch.autograd.Function):
    """Takes and saves what a loss does, and gives gradients of the right shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias, target)
        ctx.gradients = torch.empty_like(weight), torch.empty_like(bias)
        return x.new_empty(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        ctx.saved_tensors  # noqa: B018 (unpacked, as a loss must)
        gradients, ctx.gradients = ctx.gradients, None
        return None, *gradients, None


def floor(p: Problem) -> Contender:
    model: nn.Linear = p.model()
    weight, bias = model.weight, model.bias

    def run() -> Tensor:
        weight.grad = bias.grad = None
        loss: Tensor = Empty.apply(p.x, weight, bias, p.y)  # type: ignore[no-untyped-call]
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    return Contender(FLOOR, run)


def cases(quick: bool) -> Iterator[Planned]:
    builds: dict[str, Callable[[], Case]] = {GRADIENT: gradient_case, STEP: step_case}
    for name, build in builds.items():
        yield Planned(SUITE, name, build)


def gradient_case() -> Case:
    p = linear_mse.problem(*SIZE)
    contenders = gradient_contenders(p)[:2]
    expected = expected_gradient(p.affine(), p.targets(), p.flat_start(), mean=True)
    checks = [Check(contenders, 1, expected, "after one call")]
    return Case([*contenders, floor(p)], checks, "call")


def step_case() -> Case:
    p = linear_mse.problem(*SIZE)
    # Without gdcore.train_step, which does not go through autograd.
    every = step_contenders(p, compiled=False)
    contenders = [one for one in every if one.name in (PARTS, *EAGER)]
    arrays = (p.affine(), p.targets(), p.flat_start())
    expected = expected_descent(*arrays, lr=p.lr, mean=True, steps=(1, 2))
    checks = [Check(contenders, count, expected[count], f"at step {count}") for count in (1, 2)]
    return Case([*contenders, floor(p)], checks, "step")
