"""Training as plain PyTorch writes it, and how large its rounding errors can grow."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import gdcore

Loss = Callable[[Tensor, Tensor], Tensor]


def plain_step(
    model: nn.Module, loss_fn: Loss, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor
) -> Tensor:
    loss = loss_fn(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def plain_loop(
    model: nn.Module,
    loss_fn: Loss,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    steps: int,
) -> Tensor:
    """The losses of a loop, each before its update."""
    return torch.stack([plain_step(model, loss_fn, optimizer, x, y) for _ in range(steps)])


def absolute_legendre(x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """a + b P₃(c + d x) with every difference made a sum."""
    u = c + d * x
    return a + b * 0.5 * (5 * u**3 + 3 * u)


def magnitudes(
    model: nn.Module,
    reduction: str,
    options: Mapping[str, Mapping[str, Any]],
    x: Tensor,
    y: Tensor,
    steps: int,
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor | None]]:
    """`plain_loop` over absolute values, nothing ever cancelling: losses, parameters, momentum.

    ``options`` holds SGD's options for every parameter that is trained, by name. A difference
    becomes a sum where the second operand is negative: the target, and the rate.
    """
    model = copy.deepcopy(model).double()
    for parameter in model.parameters():
        parameter.data.abs_()
        parameter.requires_grad_()
    x, target = x.double().abs(), -y.double().abs()
    buffers: dict[str, Tensor | None] = dict.fromkeys(options)
    losses = []
    for _ in range(steps):
        if isinstance(model, gdcore.nn.LegendreRegression):
            prediction = absolute_legendre(x, model.a, model.b, model.c, model.d)
        else:
            prediction = model(x)
        loss = gdcore.reference.mse_loss(prediction, target, reduction)
        losses.append(loss.detach())
        named = list(model.named_parameters())
        grads = torch.autograd.grad(loss, [parameter for _, parameter in named])
        for (name, parameter), grad in zip(named, grads, strict=True):
            if name not in options:
                continue
            rule = {key: value for key, value in options[name].items() if key != "maximize"}
            rule["lr"] = -rule["lr"]
            parameter.data, buffers[name] = gdcore.reference.sgd_update(
                parameter.data, grad, buffers[name], **rule
            )
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    return torch.stack(losses), parameters, buffers


def roundings(model: nn.Module, elements: int, steps: int) -> int:
    """The most roundings between an argument and a result of ``steps`` steps of `plain_loop`.

    A prediction takes two for each term, a sum over ``elements`` residuals one for each, an update
    at most twelve (three for each of weight decay, momentum, Nesterov and the rate, the constants'
    own conversion among them), scaling and the conversions of dtype fewer than twelve. A gradient
    that multiplies m rounded parameters adds up the roundings of each: one for the models that are
    affine in their parameters; seven for a + b P₃(c + d x), where ∂/∂d is r b P₃'(u) x with
    r cubic in u, times b. The loss squares r.
    """
    legendre = isinstance(model, gdcore.nn.LegendreRegression)
    of_prediction, of_gradient, more = (4, 7, 20) if legendre else (1, 1, 0)
    terms = 2 * max(p[0].numel() if p.dim() > 1 else p.numel() for p in model.parameters())
    of_parameters = 0
    for _ in range(steps):
        of_parameters = of_gradient * of_parameters + terms + elements + 24 + more
    return 2 * (of_prediction * of_parameters + terms + more) + elements + 24
