"""Problems for the runners, and optimizers with every option that they have."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import gdcore
from gdcore import _ops
from gdcore._native.problem import Problem

DTYPES = (torch.float32, torch.float64)

OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 0.05}),
    "SGD with all options": (
        "SGD",
        {"lr": 0.02, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.1},
    ),
    "SGD, Nesterov, ascending": (
        "SGD",
        {"lr": 1e-3, "momentum": 0.7, "nesterov": True, "maximize": True},
    ),
    "RMSprop": ("RMSprop", {"lr": 0.01}),
    "RMSprop with all options": (
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.6},
    ),
    "RMSprop, centered": ("RMSprop", {"lr": 0.01, "centered": True, "eps": 1e-3}),
    "Adam": ("Adam", {"lr": 0.03}),
    "Adam with all options": (
        "Adam",
        {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1, "amsgrad": True},
    ),
    "Adam, decoupled": ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "AdamW": ("AdamW", {"lr": 0.03, "weight_decay": 0.2, "maximize": True}),
}


def optimizer(name: str, params: Any, module: Any = torch.optim) -> torch.optim.Optimizer:
    kind, options = OPTIMIZERS[name]
    built: torch.optim.Optimizer = getattr(module, kind)(params, **options)
    return built


def linear(
    n: int = 40,
    d: int = 3,
    k: int = 2,
    dtype: torch.dtype = torch.float64,
    *,
    seed: int = 0,
    weighted: bool = False,
    mean: bool = True,
) -> Problem:
    """Noisy targets, so that the loss does not reach zero."""
    generator = torch.Generator().manual_seed(seed)

    there = torch.get_default_device()

    def random(*shape: int) -> Tensor:
        made = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
        return made.to(there, dtype)

    x, noise = random(n, d), random(n, k)
    y = x @ random(d, k) + 1 + noise / 2
    weight = random(n, k).abs() if weighted else None
    parameters = (nn.Parameter(random(k, d)), nn.Parameter(random(k)))
    return Problem("linear", ("weight", "bias"), parameters, x, y, weight, mean)


def twin(problem: Problem, dtype: torch.dtype | None = None) -> Problem:
    """The same problem with parameters of its own."""
    to = dtype or problem.x.dtype
    return problem._replace(
        parameters=tuple(nn.Parameter(p.detach().clone().to(to)) for p in problem.parameters),
        x=problem.x.to(to),
        y=problem.y.to(to),
        weight=None if problem.weight is None else problem.weight.to(to),
    )


def step_by_parts(problem: Problem, optimizer: torch.optim.Optimizer) -> Tensor:
    """One step of gdcore's own parts: the loss as an op, and the optimizer's step."""
    weight, bias = problem.parameters
    reduction = "mean" if problem.mean else "sum"
    x, y, loss_weight = problem.x, problem.y, problem.weight
    loss, dweight, dbias, _ = _ops.linear_mse(x, weight, bias, y, reduction, False, loss_weight)
    weight.grad, bias.grad = dweight, dbias
    optimizer.step()
    weight.grad = bias.grad = None
    return loss


def rows_of(problem: Problem, rows: Tensor) -> Problem:
    weight = None if problem.weight is None else problem.weight[rows]
    return problem._replace(x=problem.x[rows], y=problem.y[rows], weight=weight)


def everything(problem: Problem, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Parameters and the optimizer's state, copied."""
    states = [optimizer.state.get(p, {}) for p in problem.parameters]
    tensors = [(key, state[key]) for state in states for key in sorted(state)]
    # Where steps are counted is a matter of torch's: RMSprop's on the default device.
    all_states = (t.cpu() if key == "step" else t for key, t in tensors)
    return [tensor.detach().clone() for tensor in (*problem.parameters, *all_states)]


def close(a: Sequence[Tensor], b: Sequence[Tensor], roundings: int) -> None:
    """Numbers that do not cancel, each after so many operations in any order."""
    for ours, theirs in zip(a, b, strict=True):
        unit = torch.finfo(ours.dtype).eps / 2
        torch.testing.assert_close(ours, theirs, rtol=roundings * unit, atol=roundings * unit)


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Equal to the bit."""
    return len(a) == len(b) and all(map(torch.equal, a, b))


Build = Callable[[Any], torch.optim.Optimizer]
OURS = gdcore.optim
