"""Seed 003: the cubic as nn.Sequential over (x, x^2, x^3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn, optim

from gdcore import fit

from . import pictures, stories
from .golden import check_table, golden
from .lesson import Lesson, Run, Settings
from .rounding import compare_versions
from .sine import cubic_lines, powers, sine_settings, start


def prepare(x: Tensor) -> Tensor:
    """(x, x^2, x^3) as columns."""
    return x.unsqueeze(-1).pow(torch.tensor([1, 2, 3]))


def sequential(settings: Settings, weight: Tensor, bias: Tensor) -> nn.Sequential:
    """The seed's model, started where it is told to."""
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0, 1)).to(settings.dtype)
    model.load_state_dict({"0.weight": weight, "0.bias": bias})
    return model


def linear_start(settings: Settings) -> tuple[Tensor, Tensor]:
    bias, *weight = start(settings, "sine_nn")
    return torch.stack(weight)[None, :], bias[None]


def manual(settings: Settings) -> Run:
    xx, y, learning_rate = prepare(settings.x), settings.y, settings.lr
    weight, bias = linear_start(settings)
    run = Run()
    for t in range(settings.epochs):
        y_pred = (xx @ weight.T + bias).flatten()
        loss = torch.sum((y_pred - y) ** 2)
        if t % settings.every == settings.every - 1:
            run.record(t, cost=loss)
        grad_y_pred = 2.0 * (y_pred - y)
        weight -= learning_rate * (grad_y_pred @ xx)
        bias -= learning_rate * grad_y_pred.sum()
    return run.finish(coefficients=torch.cat([bias, weight[0]]), cost=loss)


def autograd(settings: Settings) -> Run:
    xx, y, learning_rate = prepare(settings.x), settings.y, settings.lr
    model = sequential(settings, *linear_start(settings))
    loss_fn = nn.MSELoss(reduction="sum")
    run = Run()
    for t in range(settings.epochs):
        y_pred = model(xx)
        loss = loss_fn(y_pred, y)
        if t % settings.every == settings.every - 1:
            run.record(t, cost=loss)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for param in model.parameters():
                param -= learning_rate * param.grad  # type: ignore[operator,misc]
    return run.finish(coefficients=coefficients(model), cost=loss)


def fused(settings: Settings) -> Run:
    xx, y = prepare(settings.x), settings.y
    model = sequential(settings, *linear_start(settings))
    optimizer = optim.SGD(model.parameters(), lr=settings.lr)
    loss_fn = nn.MSELoss(reduction="sum")
    run = Run()
    history = fit(model, loss_fn, optimizer, (xx, y), epochs=settings.epochs, method="stepwise")
    run.costs = history.loss
    for t in range(settings.every - 1, settings.epochs, settings.every):
        run.record(t, cost=history.loss[t])
    return run.finish(coefficients=coefficients(model), cost=history.loss[-1])


def coefficients(model: nn.Sequential) -> Tensor:
    """The cubic's coefficients in ascending powers."""
    return torch.cat([model[0].bias, model[0].weight[0]])  # type: ignore[list-item,index]


SINE_NN = Lesson(
    name="sine_nn",
    title="the same cubic as nn.Sequential(Linear, Flatten) over x, x^2, x^3",
    teaches="The nn package holds the parameters: a Linear layer over the columns x, x^2, x^3 is "
    "the same cubic, and MSELoss the same loss. gdcore.fit takes the seed's own model and loss as "
    "they are.",
    versions={"manual": manual, "autograd": autograd, "fused": fused},
    settings=lambda: sine_settings("sine_nn", torch.float32, golden("sine_nn")["lr"]),
    lines=cubic_lines("{}"),
    check=check_table("sine_nn"),
    compare=compare_versions(powers, "sum"),
    draw=pictures.fitted_curve("A Linear layer over x, x^2, x^3", pictures.cubic),
    says=stories.cubic,
    has_table=True,
)
