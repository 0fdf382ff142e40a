"""What the tests of determinism run: every kernel and loop, over several chunks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import gdcore
from gdcore import _ops, nn, reference

from . import native_step
from .sizes import rows_per_chunk

# Elements from which work is shared (kSerialElements of csrc/training/objective.h).
SHARED = 2**17

Results = tuple[Tensor, ...]
# Runs on the rows in another order, or as they are.
Run = Callable[[Tensor | None], Results]
Case = Callable[[torch.dtype], Run]


def random(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def in_order(order: Tensor | None, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return (x, y) if order is None else (x[order], y[order])


# Targets are predictions with noise: gradients cancel, and what each sum rounds shows in them.


def linear(n: int, d: int, k: int) -> Case:
    def case(dtype: torch.dtype) -> Run:
        assert n > 3 * rows_per_chunk(d * k + k)
        assert n * (d * k + k) > SHARED
        x, weight, bias, noise = random(dtype, (n, d), (k, d), (k,), (n, k))
        target = torch.nn.functional.linear(x, weight, bias) + noise

        def run(order: Tensor | None) -> Results:
            rows, targets = in_order(order, x, target)
            return _ops.linear_mse(rows, weight, bias, targets, "mean", True)

        return run

    return case


def far(n: int, d: int, k: int) -> Case:
    """Rows that are fetched ahead, in short blocks: more than kNearBytes of linear_mse_wide.inl."""
    assert n * d * 4 > 2**22
    return linear(n, d, k)


def polynomial(n: int, degree: int) -> Case:
    def case(dtype: torch.dtype) -> Run:
        x, coefficients, noise = random(dtype, (n,), (degree + 1,), (n,))
        target = reference.polynomial(x, coefficients) + noise

        def run(order: Tensor | None) -> Results:
            points, targets = in_order(order, x, target)
            return _ops.polynomial_mse(points, coefficients, targets, "mean")

        return run

    return case


def legendre_mse(*, weights: bool) -> Case:
    n = 40_001

    def case(dtype: torch.dtype) -> Run:
        x, a, b, c, d, noise, rows = random(dtype, (n,), (), (), (), (), (n,), (n,))
        target = a + b * reference.legendre_p3(c + d * x) + noise

        def run(order: Tensor | None) -> Results:
            points, targets = in_order(order, x, target)
            counted = rows.abs() if order is None else rows.abs()[order]
            weight = counted if weights else None
            return _ops.legendre_mse(points, a, b, c, d, targets, "mean", weight)

        return run

    return case


def mse(dtype: torch.dtype) -> Run:
    input, target = random(dtype, (200_001,), (200_001,))

    def run(order: Tensor | None) -> Results:
        inputs, targets = in_order(order, input, target)
        return _ops.mse(inputs, targets, "mean", True)

    return run


def legendre_p3(dtype: torch.dtype) -> Run:
    x, grad = random(dtype, (SHARED + 1,), (SHARED + 1,))
    return lambda _: (_ops.legendre_p3(x), _ops.legendre_p3_backward(grad, x))


def update(name: str, *, half: bool = False, **settings: Any) -> Case:
    """An optimizer's step over tensors whose bounds are not those of chunks."""

    def case(dtype: torch.dtype) -> Run:
        if half:
            dtype = {torch.float32: torch.bfloat16, torch.float64: torch.float16}[dtype]
        sizes = [(SHARED + 1,), (3, 5), (SHARED // 3,), (70_001,)]
        starts, grads = random(dtype, *sizes), random(dtype, *sizes, *sizes)[len(sizes) :]

        def run(_: Tensor | None) -> Results:
            parameters = [t.clone() for t in starts]
            keys = native_step.states_of(name, settings)
            # An average of squares is positive, and larger than the average's square.
            scale = {"grad_avg": 0.1}
            states = [{key: scale.get(key, 1.0) * t.abs() for key in keys} for t in starts]
            if name != "SGD":
                for state in states:
                    state["step"] = torch.tensor(3.0)
            native_step.step(name, parameters, grads, states, lr=0.1, **settings)
            return (*parameters, *(state[key] for state in states for key in keys))

        return run

    return case


def weighted(n: int, d: int, k: int) -> Case:
    def case(dtype: torch.dtype) -> Run:
        x, weight, bias, target, rows = random(dtype, (n, d), (k, d), (k,), (n, k), (n, k))

        def run(order: Tensor | None) -> Results:
            inputs, targets = in_order(order, x, target)
            counted = rows.abs() if order is None else rows.abs()[order]
            return _ops.linear_mse(inputs, weight, bias, targets, "mean", True, counted)

        return run

    return case


def half(n: int, d: int) -> Case:
    """A loss of half types and its gradients, through autograd."""

    def case(dtype: torch.dtype) -> Run:
        dtype = {torch.float32: torch.bfloat16, torch.float64: torch.float16}[dtype]
        x, weight, noise = random(dtype, (n, d), (1, d), (n, 1))
        target = x @ weight.T + noise

        def run(order: Tensor | None) -> Results:
            rows, targets = in_order(order, x, target)
            leaf = weight.clone().requires_grad_()
            loss = gdcore.functional.linear_mse_loss(rows, leaf, None, targets)
            loss.backward()
            assert leaf.grad is not None
            return loss.detach(), leaf.grad

        return run

    return case


def compress(n: int, d: int) -> Case:
    """By the triangle of blocks of rows."""

    def case(dtype: torch.dtype) -> Run:
        x, y = random(dtype, (n, d), (n, 2))

        def run(order: Tensor | None) -> Results:
            rows, targets = gdcore.compress(*in_order(order, x, y)).data
            upper = torch.cat((rows, targets), 1).triu()
            return (upper[upper != 0],)

        return run

    return case


def momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)


def fit(
    make: Callable[[], torch.nn.Module],
    *shapes: tuple[int, ...],
    optimizer_of: Callable[[Any], torch.optim.Optimizer] = momentum,
    **options: Any,
) -> Case:
    """A whole fit: the losses, and the parameters at the end."""
    options = {"epochs": 6, "method": "stepwise", **options}

    def case(dtype: torch.dtype) -> Run:
        x, y = random(dtype, *shapes)

        def run(order: Tensor | None) -> Results:
            torch.manual_seed(0)
            model = make().to(dtype)
            optimizer = optimizer_of(model.parameters())
            data = in_order(order, x, y)
            history = gdcore.fit(model, torch.nn.MSELoss(), optimizer, data, **options)
            return history.loss, *(p.detach() for p in model.parameters())

        return run

    return case


def steps(n: int, d: int) -> Case:
    """Single steps, of a model that is known by what it does."""

    def case(dtype: torch.dtype) -> Run:
        x, y = random(dtype, (n, d), (n, 1))

        def run(order: Tensor | None) -> Results:
            torch.manual_seed(0)
            model = affine(d).to(dtype)
            step = gdcore.train_step(
                model, torch.nn.MSELoss(), torch.optim.Adam(model.parameters(), 0.01), strict=True
            )
            rows, targets = in_order(order, x, y)
            losses = torch.stack([step(rows, targets) for _ in range(4)])
            return losses, *(p.detach() for p in model.parameters())

        return run

    return case


def affine(d: int) -> torch.nn.Module:
    """No kernel of its own has this name: features, and places that they belong to."""
    return torch.nn.Sequential(torch.nn.Linear(d, 1))


# Rows (0 where a result's elements do not depend on each other) and what runs on them.
CASES: dict[str, tuple[int, Case]] = {
    "linear_mse narrow": (40_001, linear(40_001, 3, 1)),
    "linear_mse short": (470_001, linear(470_001, 8, 1)),
    "linear_mse few outputs": (20_001, linear(20_001, 5, 3)),
    "linear_mse under weights": (40_001, weighted(40_001, 3, 1)),
    "linear_mse wide under weights": (20_001, weighted(20_001, 20, 2)),
    "linear_mse many outputs under weights": (2_601, weighted(2_601, 20, 16)),
    "linear_mse of half types": (40_001, half(40_001, 5)),
    "linear_mse wide": (8_001, linear(8_001, 100, 1)),
    "linear_mse, 16 columns": (13_001, linear(13_001, 16, 1)),
    "linear_mse, 32 columns": (9_001, linear(9_001, 32, 1)),
    "linear_mse, 64 columns": (5_001, linear(5_001, 64, 1)),
    "linear_mse, 16 columns, far": (70_001, far(70_001, 16, 1)),
    "linear_mse, 32 columns, far": (40_001, far(40_001, 32, 1)),
    "linear_mse, 64 columns, far": (20_001, far(20_001, 64, 1)),
    "linear_mse wide, few outputs, far": (60_001, far(60_001, 20, 3)),
    "linear_mse many outputs": (2_601, linear(2_601, 20, 16)),
    "polynomial_mse": (40_001, polynomial(40_001, 3)),
    "polynomial_mse of degree 7": (20_001, polynomial(20_001, 7)),
    "legendre_mse": (40_001, legendre_mse(weights=False)),
    "legendre_mse under weights": (40_001, legendre_mse(weights=True)),
    "mse": (200_001, mse),
    "legendre_p3": (0, legendre_p3),
    "sgd": (0, update("SGD", momentum=0.9, dampening=0.1, weight_decay=0.1, maximize=True)),
    "rmsprop": (0, update("RMSprop", momentum=0.9, centered=True, weight_decay=0.1, alpha=0.1)),
    "adam": (0, update("Adam", amsgrad=True, weight_decay=0.1)),
    "adamw": (0, update("Adam", weight_decay=0.1, decoupled_weight_decay=True)),
    "sgd, half types": (0, update("SGD", half=True, momentum=0.9)),
    "adam, half types": (0, update("Adam", half=True, weight_decay=0.1)),
    "compress": (60_001, compress(60_001, 20)),
    "compress, wide": (20_001, compress(20_001, 60)),
    "fit of a line": (80_001, fit(lambda: nn.LinearRegression(1), (80_001, 1), (80_001, 1))),
    "fit of a plane": (8_001, fit(lambda: nn.LinearRegression(65), (8_001, 65), (8_001, 1))),
    "fit of features": (
        8_001,
        fit(lambda: affine(65), (8_001, 65), (8_001, 1), optimizer_of=torch.optim.Adam),
    ),
    "steps of features": (26_001, steps(26_001, 5)),
    "fit in shuffled batches, gathered beside it": (
        30_001,
        fit(
            lambda: nn.LinearRegression(8),
            (30_001, 8),
            (30_001, 1),
            batch_size=64,
            shuffle=True,
            epochs=2,
        ),
    ),
    "fit of many outputs": (
        2_601,
        fit(lambda: nn.LinearRegression(20, 16), (2_601, 20), (2_601, 16)),
    ),
    "fit of a polynomial": (40_001, fit(lambda: nn.PolynomialRegression(3), (40_001,), (40_001,))),
    "fit of a legendre": (40_001, fit(nn.LegendreRegression, (40_001,), (40_001,))),
    "fit, compressed": (
        60_001,
        fit(lambda: nn.LinearRegression(9), (60_001, 9), (60_001, 1), method="compressed"),
    ),
    "fit, minibatches": (
        40_001,
        fit(lambda: nn.LinearRegression(9), (40_001, 9), (40_001, 1), epochs=1, batch_size=64),
    ),
    "fit, large minibatches": (
        40_001,
        fit(
            lambda: nn.LinearRegression(17),
            (40_001, 17),
            (40_001, 1),
            epochs=2,
            batch_size=9_000,
            shuffle=True,
        ),
    ),
    "fit of few points": (17, fit(lambda: nn.LinearRegression(3), (17, 3), (17, 1))),
}
