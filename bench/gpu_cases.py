"""What `gpu.py` measures: pieces of work by gdcore and by its rivals, whose results agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gdcore

Run = Callable[[], Any]

DEVICE = "cuda"


@dataclass(frozen=True)
class Goal:
    """What is to be reached: so many times the first rival, and such a share of a copy's rate."""

    ratio: float
    share: float | None = None


@dataclass(frozen=True)
class Case:
    """One piece of work; gdcore's run is the first of ``runs``.

    Args:
        name: What tables call it.
        runs: By contender; the second is the rival of ``goal``.
        moved: Bytes that a run must read and write at least, or None.
        units: Epochs or steps of one run.
        unit: What a time is given for.
        goal: Against the second of ``runs``.
    """

    name: str
    runs: dict[str, Run]
    moved: int | None
    units: int
    unit: str
    goal: Goal | None


def agree(ours: Sequence[Tensor], theirs: Sequence[Tensor], rtol: float, what: str) -> None:
    """Raise unless every tensor is within ``rtol`` of the other's largest element."""
    for mine, other in zip(ours, theirs, strict=True):
        mine, other = mine.detach(), other.detach()
        scale = float(other.double().abs().max())
        off = float((mine.double() - other.double()).abs().max())
        if not off <= rtol * scale:
            raise AssertionError(f"{what}: off by {off:.3g} of {scale:.3g}")


def in_threes(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def copies(parameters: Sequence[Tensor]) -> list[nn.Parameter]:
    return [nn.Parameter(p.detach().clone()) for p in parameters]


class Fit:
    """A model's full-batch loop by gdcore, by eager PyTorch, and by a graph of the latter.

    Args:
        make: A new model, always the same, whose parameters are ``predict``'s in their order.
        predict: What eager PyTorch runs.
        methods: `gdcore.fit`'s, of which the first is the one with a goal; none for
            `gdcore.train_step`.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        predict: Callable[..., Tensor],
        x: Tensor,
        y: Tensor,
        lr: float,
        *methods: str,
    ) -> None:
        self.make, self.predict, self.x, self.y = make, predict, x, y
        self.lr, self.methods = lr, methods or (None,)

    def ours(self, epochs: int, method: str | None) -> tuple[list[nn.Parameter], Run]:
        model = self.make()
        theta, data = list(model.parameters()), (self.x, self.y)
        parts = (model, nn.MSELoss(), torch.optim.SGD(theta, lr=self.lr))
        if method is None:
            step = gdcore.train_step(*parts, strict=True)
            return theta, lambda: [step(*data) for _ in range(epochs)]
        how: dict[str, Any] = {"epochs": epochs, "method": method, "strict": True}
        return theta, lambda: gdcore.fit(*parts, data, **how)

    def eager(self, epochs: int) -> tuple[list[nn.Parameter], Run]:
        theta = list(self.make().parameters())
        optimizer = torch.optim.SGD(theta, lr=self.lr)

        def run() -> None:
            for _ in range(epochs):
                optimizer.zero_grad()
                F.mse_loss(self.predict(self.x, *theta), self.y).backward()
                optimizer.step()

        return theta, run

    def graph(self) -> tuple[list[nn.Parameter], Run]:
        """One epoch, captured; its parameters have moved while it was, and live as long as it."""
        theta, run = self.eager(1)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        # The graph writes to their memory, and knows nothing of who else may be given it.
        return theta, lambda: (graph.replay(), theta)

    def case(
        self, name: str, epochs: int, moved: int | None, goal: Goal | None, rtol: float
    ) -> Case:
        """gdcore, eager, a replayed graph and gdcore's other methods, once some epochs agree."""
        few = min(epochs, 5)
        wanted, run = self.eager(few)
        run()
        for method in self.methods:
            theta, run = self.ours(few, method)
            run()
            agree(theta, wanted, rtol, f"{name}, {method}")
        _, replay = self.graph()
        first, *others = (
            ("gdcore" if method is None else f"gdcore, {method}", self.ours(epochs, method)[1])
            for method in self.methods
        )
        runs: dict[str, Run] = dict([first])
        runs["eager"] = self.eager(epochs)[1]
        runs["eager, in a graph"] = lambda: [replay() for _ in range(epochs)]
        return Case(name, {**runs, **dict(others)}, moved, epochs, "epoch", goal)


def zero_line(columns: int, outputs: int = 1) -> nn.Linear:
    model = nn.Linear(columns, outputs, device=DEVICE)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def linear_steps(rows: int, columns: int, goal: Goal | None, outputs: int = 1) -> Case:
    x = torch.randn(rows, columns, device=DEVICE)
    truth = torch.randn(outputs, columns, device=DEVICE)
    y = x @ truth.t() + 0.1
    fit = Fit(lambda: zero_line(columns, outputs), F.linear, x, y, 0.1)
    name = f"full batch step ({in_threes(rows)}, {columns}) float32"
    if outputs > 1:
        name += f" of {outputs} outputs"
    # A float32 sum of so many rows, in any order: eager's own error is the larger.
    return fit.case(name, 10, 4 * rows * (columns + outputs), goal, 1e-3)


def lesson_line(epochs: int) -> Case:
    x = torch.tensor([[1.0], [2.0], [3.0]], device=DEVICE)
    # What is asked is the loop of one launch; "auto" may well compress so few rows.
    fit = Fit(lambda: zero_line(1), F.linear, x, 2 * x, 0.01, "stepwise", "auto")
    return fit.case(
        f"linear_regression lesson, {epochs} epochs, stepwise", epochs, None, Goal(500), 1e-5
    )


def cubic() -> nn.Module:
    model = gdcore.nn.PolynomialRegression(3).to(DEVICE)
    with torch.no_grad():
        model.coefficients.copy_(torch.linspace(-0.5, 0.5, 4))
    return model


def sin_cubic(points: int, epochs: int) -> Case:
    x = torch.linspace(-torch.pi, torch.pi, points, device=DEVICE)
    fit = Fit(cubic, gdcore.reference.polynomial, x, torch.sin(x), 1e-4, "stepwise", "auto")
    return fit.case(f"sin cubic, {points} x {epochs}, stepwise", epochs, None, Goal(100), 1e-4)


def updates(count: int, size: int, goal: Goal) -> Case:
    """`SGD.step()` with momentum: three tensors read and two written, for each parameter."""
    values = [torch.randn(size, device=DEVICE) for _ in range(count)]
    grads = [torch.randn(size, device=DEVICE) for _ in range(count)]
    optimizers = {
        "gdcore": gdcore.optim.SGD(copies(values), lr=1e-3, momentum=0.9),
        "fused": torch.optim.SGD(copies(values), lr=1e-3, momentum=0.9, fused=True),
        "foreach": torch.optim.SGD(copies(values), lr=1e-3, momentum=0.9, foreach=True),
    }
    for optimizer in optimizers.values():
        for p, grad in zip(optimizer.param_groups[0]["params"], grads, strict=True):
            p.grad = grad
        for _ in range(3):
            optimizer.step()
    theirs = optimizers["fused"].param_groups[0]["params"]
    agree(optimizers["gdcore"].param_groups[0]["params"], theirs, 1e-6, "SGD.step()")
    runs: dict[str, Run] = {name: optimizer.step for name, optimizer in optimizers.items()}
    name = f"SGD.step() with momentum, {count} tensors of {in_threes(size)}"
    return Case(name, runs, 4 * 5 * count * size if size > 10**6 else None, 1, "step", goal)


def loss_alone(rows: int) -> Case:
    """`mse_loss` with its gradient: two tensors read, one written."""
    prediction = torch.randn(rows, device=DEVICE, requires_grad=True)
    target = torch.randn(rows, device=DEVICE)

    def run(loss: Callable[..., Tensor]) -> Tensor:
        (gradient,) = torch.autograd.grad(loss(prediction, target), prediction)
        return gradient

    agree([run(gdcore.functional.mse_loss)], [run(F.mse_loss)], 1e-6, "mse_loss")
    runs = {
        "gdcore": lambda: run(gdcore.functional.mse_loss),
        "eager": lambda: run(F.mse_loss),
    }
    name = f"mse_loss and gradient, {in_threes(rows)}"
    return Case(name, runs, 12 * rows, 1, "call", None)


def all_cases(quick: bool) -> list[Callable[[], Case]]:
    shrink = 100 if quick else 1
    return [
        lambda: lesson_line(2000 // min(shrink, 10)),
        lambda: sin_cubic(2000, 2000 // min(shrink, 10)),
        lambda: updates(100, 1024, Goal(1.3)),
        lambda: updates(4, 64 * 2**20 // shrink, Goal(1.0, 0.85)),
        lambda: loss_alone(10**8 // shrink),
        lambda: linear_steps(10**8 // shrink, 1, Goal(6.0, 0.8)),
        lambda: linear_steps(10**7 // shrink, 64, Goal(2.5, 0.8)),
        # Four readings of x, of which the device's cache is to serve three.
        lambda: linear_steps(10**7 // shrink, 64, None, outputs=16),
    ]
