"""Seed 003: the cubic as nn.Sequential, trained by RMSprop.

Near its minimum RMSprop amplifies rounding: of two correct runs, float64 ones too, every digit
has parted some hundred steps after the first coefficient settles. So what is compared is

    float32   the losses of the first 300 steps;
    float64   every step: both versions step from the same parameters, their square averages
              being their own;
    the end   the last losses, and the size of the oscillation that RMSprop ends in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn, optim

from gdcore import fit

from . import pictures, stories
from .agreement import Disagreement
from .golden import golden
from .lesson import Lesson, Run, Settings, Trained, numbers
from .sine import cubic_lines, sine_settings
from .sine_nn import coefficients, prepare, sequential

# From this start every run that was tried (200 in float32 and 200 in float64, their starts 1e-6
# apart) is the same for 490 steps, and has settled into the final oscillation by step 1 700, as
# the seed's run has; many others take longer.
OWN_SEED = 174

FLOAT32_STEPS = 300
# 300 steps of lr = 1e-3, each at most 10 gradient / |gradient| long and the gradient off by some
# 16 roundings of float32, move a coefficient by 3e-6, and a loss of 1e3 with slope 1e4 by 1e-4
# of itself.
FLOAT32_RELATIVE = 1e-4
# From equal parameters, a step's error is lr times that of gradient / sqrt(average). The sums of
# 2 000 float64 terms of up to 100 are good to 1e-10 and sqrt(average) is above 1e-3 wherever the
# gradient is not zero, which leaves 1e-7.
STEP_RELATIVE = 1e-6


class Training(NamedTuple):
    """Parameters, and the function that updates them once and returns the loss before."""

    weight: Tensor
    bias: Tensor
    step: Callable[[], Tensor]


def start(settings: Settings) -> tuple[Tensor, Tensor]:
    """What nn.Linear starts from under the seed."""
    torch.manual_seed(OWN_SEED if settings.seed is None else settings.seed)
    linear = nn.Linear(3, 1).to(settings.dtype)
    return linear.weight.detach(), linear.bias.detach()


def manual(settings: Settings) -> Training:
    xx, y, learning_rate = prepare(settings.x), settings.y, settings.lr
    weight, bias = start(settings)
    averages = torch.zeros_like(weight), torch.zeros_like(bias)

    def step() -> Tensor:
        y_pred = (xx @ weight.T + bias).flatten()
        loss = torch.sum((y_pred - y) ** 2)
        grad_y_pred = 2.0 * (y_pred - y)
        gradients = (grad_y_pred[None, :] @ xx, grad_y_pred.sum())
        for parameter, gradient, average in zip((weight, bias), gradients, averages, strict=True):
            average.mul_(0.99).add_(0.01 * gradient**2)
            parameter -= learning_rate * gradient / (average.sqrt() + 1e-8)
        return loss

    return Training(weight, bias, step)


def rmsprop(settings: Settings) -> tuple[nn.Sequential, nn.MSELoss, optim.RMSprop]:
    """The seed's own objects."""
    model = sequential(settings, *start(settings))
    return model, nn.MSELoss(reduction="sum"), optim.RMSprop(model.parameters(), lr=settings.lr)


def autograd(settings: Settings) -> Training:
    xx, y = prepare(settings.x), settings.y
    model, loss_fn, optimizer = rmsprop(settings)

    def step() -> Tensor:
        y_pred = model(xx)
        loss: Tensor = loss_fn(y_pred, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    weight, bias = model.parameters()
    return Training(weight, bias, step)


def fused(settings: Settings) -> Run:
    xx, y = prepare(settings.x), settings.y
    model, loss_fn, optimizer = rmsprop(settings)
    run = Run()
    history = fit(model, loss_fn, optimizer, (xx, y), epochs=settings.epochs, method="stepwise")
    run.costs = history.loss
    for t in range(settings.every - 1, settings.epochs, settings.every):
        run.record(t, cost=history.loss[t])
    return run.finish(coefficients=coefficients(model), cost=history.loss[-1])


def fused_steps(settings: Settings) -> Training:
    """The same in fits of one epoch each."""
    data = prepare(settings.x), settings.y
    model, loss_fn, optimizer = rmsprop(settings)

    def step() -> Tensor:
        return fit(model, loss_fn, optimizer, data, epochs=1, method="stepwise").loss[0]

    weight, bias = model.parameters()
    return Training(weight, bias, step)


def loop(make: Callable[[Settings], Training]) -> Callable[[Settings], Run]:
    """The training loop around a version's step."""

    def version(settings: Settings) -> Run:
        weight, bias, step = make(settings)
        run, losses = Run(), []
        for t in range(settings.epochs):
            loss = step()
            losses.append(loss.detach())
            if t % settings.every == settings.every - 1:
                run.record(t, cost=loss)
        run.costs = torch.stack(losses)
        return run.finish(coefficients=torch.cat([bias, weight[0]]), cost=loss)

    return version


TRAININGS = {"manual": manual, "autograd": autograd, "fused": fused_steps}
VERSIONS = {"manual": loop(manual), "autograd": loop(autograd), "fused": fused}


def step_by_step(settings: Settings, backend: str) -> Disagreement | None:
    """Each step of a version against torch.optim.RMSprop's, from the same parameters, float64."""
    settings = settings.to(torch.float64)
    want, have = autograd(settings), TRAININGS[backend](settings)
    for t in range(settings.epochs):
        with torch.no_grad():
            have.weight.copy_(want.weight)
            have.bias.copy_(want.bias)
        want.step()
        have.step()
        both = zip(want[:2], have[:2], strict=True)
        if not all(torch.all(abs(a - b) <= STEP_RELATIVE * settings.lr) for a, b in both):
            where = f"{backend} against autograd in float64, step {t}: weight and bias"
            return Disagreement(where, _shown(want), _shown(have))
    return None


def _shown(training: Training) -> str:
    return str([*training.weight.flatten().tolist(), training.bias.item()])


def compare_first(
    where: str, want: Sequence[tuple[int, float]], have: Sequence[tuple[int, float]]
) -> Disagreement | None:
    """The losses of the first 300 steps."""
    for (step, a), (_, b) in zip(want, have, strict=False):
        if step < FLOAT32_STEPS and not abs(a - b) <= FLOAT32_RELATIVE * a:
            return Disagreement(f"{where}, step {step}", str(a), str(b))
    return None


def check(backend: str, run: Run, lines: list[str]) -> Disagreement | None:
    settings = sine_settings("sine_rmsprop", torch.float32, golden("sine_rmsprop")["lr"])
    found = _check_table(run) or _check_end(run, settings.lr)
    if backend == "autograd":  # torch.optim.RMSprop itself
        return found
    return found or _check_start(backend, run, settings) or step_by_step(settings, backend)


def _check_table(run: Run) -> Disagreement | None:
    """The seed's steps, and its last losses, which do not depend on the start."""
    table = golden("sine_rmsprop")["table"]
    steps = [row.step for row in run.rows]
    if steps != [step for step, _ in table]:
        return Disagreement("steps", str([step for step, _ in table]), str(steps))
    for (step, loss), row in list(zip(table, run.rows, strict=True))[-3:]:
        if not (8.9 <= loss <= 9.0 and 8.9 <= row.cost <= 9.0):
            return Disagreement(f"step {step}, from 8.9 to 9.0", str(loss), str(row.cost))
    return None


def _check_end(run: Run, lr: float) -> Disagreement | None:
    """The offset and the x^2 term oscillate about zero by half the learning rate."""
    want = golden("sine_rmsprop")["final_coefficients"]
    have = numbers(run.final["coefficients"])
    for index in (0, 2):
        for value in (want[index], have[index]):
            if not 0.4 * lr <= abs(value) <= 0.6 * lr:
                where = f"coefficient {index}, about lr / 2 in size"
                return Disagreement(where, str(want[index]), str(have[index]))
    return None


def _check_start(backend: str, run: Run, settings: Settings) -> Disagreement | None:
    reference = VERSIONS["autograd"](replace(settings, epochs=FLOAT32_STEPS))
    want = [(row.step, row.cost) for row in reference.rows]
    have = [(row.step, row.cost) for row in run.rows]
    return compare_first(f"{backend} against torch.optim.RMSprop", want, have)


def compare(settings: Settings, reference: Trained, other: Trained) -> Disagreement | None:
    # Other rates may settle within 300 steps, so only single steps are compared.
    return step_by_step(settings, other.backend)


SINE_RMSPROP = Lesson(
    name="sine_rmsprop",
    title="the same model, trained by torch.optim.RMSprop",
    teaches="RMSprop divides each coefficient's gradient by a running size of it, so all four move "
    "at about the same pace, and end in an oscillation of half the learning rate. The fused "
    "version gives gdcore.fit the same torch.optim.RMSprop, and its running sizes are updated too.",
    versions=VERSIONS,
    settings=lambda: sine_settings("sine_rmsprop", torch.float32, golden("sine_rmsprop")["lr"]),
    lines=cubic_lines("{}"),
    check=check,
    compare=compare,
    draw=pictures.fitted_curve("The same cubic by RMSprop", pictures.cubic),
    says=stories.cubic_by_rmsprop,
    has_table=True,
)
