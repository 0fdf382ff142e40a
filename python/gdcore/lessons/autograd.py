"""Seeds 001 and 004: why gradients are set to zero before each step, and what autograd computes."""

from __future__ import annotations

import torch
from torch import Tensor

from . import pictures
from .agreement import Disagreement, same_lines
from .golden import check_lines, golden
from .insight import second_derivative
from .lesson import Lesson, Run, Settings, line_per_row
from .rounding import compare_to_the_character
from .sayings import Saying, say

# The seed's own line: "the expression differentiated by w".
LINE = "수식을 w로 미분한 값 : {gradient}"

W = 2.0


def zero_grad_manual(settings: Settings) -> Run:
    gradient = 0.0
    run = Run()
    for call in range(settings.epochs):
        # d(2w)/dw = 2, and backward adds to what is there.
        gradient += 2.0
        run.record(call, gradient=gradient)
    return run.finish(gradient=gradient)


def zero_grad_autograd(settings: Settings) -> Run:
    w = torch.tensor(W, requires_grad=True)
    run = Run()
    for call in range(settings.epochs):
        z = 2 * w
        z.backward()
        run.record(call, gradient=gradient_of(w))
    return run.finish(gradient=gradient_of(w))


def gradient_of(w: Tensor) -> Tensor:
    """w.grad, which is there once backward was called."""
    return torch.zeros_like(w) if w.grad is None else w.grad


def autograd_manual(settings: Settings) -> Run:
    run = Run()
    # z = 2y + 5 and y = w^2, so dz/dw = dz/dy dy/dw = 2 * 2w.
    gradient = 2.0 * (2.0 * W)
    run.record(0, gradient=gradient)
    return run.finish(gradient=gradient)


def autograd_autograd(settings: Settings) -> Run:
    run = Run()
    w = torch.tensor(W, requires_grad=True)
    y = w**2
    z = 2 * y + 5
    z.backward()
    run.record(0, gradient=gradient_of(w))
    return run.finish(gradient=gradient_of(w))


def no_data(epochs: int) -> Settings:
    """These two lessons differentiate at a point; they have neither data nor a rate."""
    return Settings(x=torch.tensor([W]), y=torch.tensor([W]), lr=0.0, epochs=epochs)


def check_autograd(backend: str, run: Run, lines: list[str]) -> Disagreement | None:
    return same_lines([LINE.format(gradient=golden("autograd")["gradient"])], lines)


def parabola(run: Run, settings: Settings) -> list[Saying]:
    """z = 2 w^2 + 5: one step of 1 / curvature ends at the minimum."""
    first, second = second_derivative(lambda w: 2 * w**2 + 5, W)
    return [say("parabola", curvature=second, gradient=first, at=W, end=W - first / second)]


def accumulated(run: Run, settings: Settings) -> list[Saying]:
    """z = 2 w has no curvature; and sums of gradients are momentum 1, which never settles."""
    _, second = second_derivative(lambda w: 2 * w, W)
    # A step with momentum 1 does this to (distance, velocity), here with lr curvature = 1; as
    # long as it is stable at all, its eigenvalues are on the unit circle.
    step = torch.tensor([[0.0, -1.0], [1.0, 1.0]])
    kept = torch.linalg.eigvals(step).abs().max().item()
    return [say("accumulated", curvature=second, kept=kept)]


ZERO_GRAD = Lesson(
    name="zero_grad",
    title="why gradients are set to zero: backward adds to them",
    teaches="backward adds the new gradient to the old one. Of z = 2w the gradient is 2, but "
    "without zero_grad the 21st call leaves 42.",
    versions={"manual": zero_grad_manual, "autograd": zero_grad_autograd},
    settings=lambda: no_data(len(golden("zero_grad")["lines"])),
    lines=line_per_row(LINE),
    check=check_lines("zero_grad"),
    compare=compare_to_the_character(line_per_row(LINE)),
    draw=pictures.accumulating_gradient,
    says=accumulated,
    options=frozenset({"epochs"}),
)

AUTOGRAD = Lesson(
    name="autograd",
    title="the gradient of 2 w^2 + 5 by autograd",
    teaches="requires_grad makes PyTorch remember what is done with w; backward walks that record "
    "and leaves the derivative in w.grad. For z = 2 w^2 + 5 at w = 2 it is 4w = 8.",
    versions={"manual": autograd_manual, "autograd": autograd_autograd},
    settings=lambda: no_data(1),
    lines=line_per_row(LINE),
    check=check_autograd,
    compare=compare_to_the_character(line_per_row(LINE)),
    draw=pictures.tangent,
    says=parabola,
    options=frozenset(),
)
