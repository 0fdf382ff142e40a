"""Equal to the bit: from run to run, over threads and over instruction sets.

On data of several chunks, large enough to be shared among threads. In float64 too: there a double
sum that was combined in another order shows, where rounding to float32 would hide it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import gdcore
from gdcore import _ops, nn, reference

from . import native_step
from .sizes import rows_per_chunk

# All up to eight; the last three times.
THREADS = (1, 2, 3, 4, 5, 6, 7, 8, 8, 8)
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


def polynomial(n: int, degree: int) -> Case:
    def case(dtype: torch.dtype) -> Run:
        x, coefficients, noise = random(dtype, (n,), (degree + 1,), (n,))
        target = reference.polynomial(x, coefficients) + noise

        def run(order: Tensor | None) -> Results:
            points, targets = in_order(order, x, target)
            return _ops.polynomial_mse(points, coefficients, targets, "mean")

        return run

    return case


def legendre_mse(dtype: torch.dtype) -> Run:
    x, a, b, c, d, noise = random(dtype, (40_001,), (), (), (), (), (40_001,))
    target = a + b * reference.legendre_p3(c + d * x) + noise

    def run(order: Tensor | None) -> Results:
        points, targets = in_order(order, x, target)
        return _ops.legendre_mse(points, a, b, c, d, targets, "mean")

    return run


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


def weighted(dtype: torch.dtype) -> Run:
    n, d = 40_001, 3
    x, weight, bias, target, rows = random(dtype, (n, d), (1, d), (1,), (n, 1), (n, 1))

    def run(order: Tensor | None) -> Results:
        inputs, targets = in_order(order, x, target)
        counted = rows.abs() if order is None else rows.abs()[order]
        return _ops.linear_mse(inputs, weight, bias, targets, "mean", True, counted)

    return run


def compress(n: int, d: int) -> Case:
    """By the triangle of blocks of rows, or by LAPACK's."""

    def case(dtype: torch.dtype) -> Run:
        x, y = random(dtype, (n, d), (n, 2))

        def run(order: Tensor | None) -> Results:
            rows, targets = gdcore.compress(*in_order(order, x, y)).data
            upper = torch.cat((rows, targets), 1).triu()
            return (upper[upper != 0],)

        return run

    return case


def fit(make: Callable[[], torch.nn.Module], *shapes: tuple[int, ...], **options: Any) -> Case:
    """A whole fit, with momentum: the losses, and the parameters at the end."""
    options = {"epochs": 6, "method": "stepwise", **options}

    def case(dtype: torch.dtype) -> Run:
        x, y = random(dtype, *shapes)

        def run(order: Tensor | None) -> Results:
            torch.manual_seed(0)
            model = make().to(dtype)
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
            data = in_order(order, x, y)
            history = gdcore.fit(model, torch.nn.MSELoss(), optimizer, data, **options)
            return history.loss, *(p.detach() for p in model.parameters())

        return run

    return case


# Rows (0 where a result's elements do not depend on each other) and what runs on them.
CASES: dict[str, tuple[int, Case]] = {
    "linear_mse narrow": (40_001, linear(40_001, 3, 1)),
    "linear_mse short": (470_001, linear(470_001, 8, 1)),
    "linear_mse few outputs": (20_001, linear(20_001, 5, 3)),
    "linear_mse under weights": (40_001, weighted),
    "linear_mse wide": (8_001, linear(8_001, 100, 1)),
    "linear_mse many outputs": (2_601, linear(2_601, 20, 16)),
    "polynomial_mse": (40_001, polynomial(40_001, 3)),
    "polynomial_mse of degree 7": (20_001, polynomial(20_001, 7)),
    "legendre_mse": (40_001, legendre_mse),
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


def equal(mine: Results, other: Results) -> bool:
    return all(map(torch.equal, mine, other))


@pytest.mark.parametrize("case", CASES)
def test_runs_threads_and_instruction_sets(
    case: str,
    dtype: torch.dtype,
    set_threads: Callable[[int], None],
    each_instruction_set: Iterable[str],
) -> None:
    run = CASES[case][1](dtype)
    first = run(None)
    # A half type may round a few elements to zero.
    assert all(t.isfinite().all() and t.count_nonzero() > 0.99 * t.numel() for t in first)
    for name in each_instruction_set:
        for threads in THREADS:
            set_threads(threads)
            assert equal(run(None), first), f"{name}, {threads} threads"


@pytest.fixture
def each_instruction_set() -> Iterator[Iterable[str]]:
    """The available ones, each forced while it is looked at."""
    before = _ops.active_instruction_set()

    def choose() -> Iterator[str]:
        for name in _ops.available_instruction_sets():
            _ops.choose_instruction_set(name)
            yield name

    yield choose()
    _ops.choose_instruction_set(before)


# The equality above would mean nothing if it held for any order of summation.


# One positive sum, a factor in double, or few rows: there a result rounded to float32 hides the
# order of the doubles.
HIDDEN_IN_FLOAT32 = ("mse", "compress", "fit of few points")


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        pytest.param(case, dtype, id=f"{case}-{dtype}".replace("torch.", ""))
        for case, (rows, _) in CASES.items()
        for dtype in (torch.float32, torch.float64)
        if rows > 0 and not (dtype is torch.float32 and case in HIDDEN_IN_FLOAT32)
    ],
)
def test_reordered_rows_differ(case: str, dtype: torch.dtype) -> None:
    rows, make = CASES[case]
    run = make(dtype)

    def sums(order: Tensor | None) -> Results:
        """The results that are not one for each row."""
        return tuple(t for t in run(order) if t.numel() < 2_000)

    generator = torch.Generator().manual_seed(1)
    orders = [torch.randperm(rows, generator=generator) for _ in range(5)]
    assert not all(equal(sums(order), sums(None)) for order in orders)


@pytest.mark.parametrize(("n", "d"), [(40_001, 3), (9_217, 64), (2_401, 400), (1_153, 4000)])
def test_chunks_are_added_in_their_order(n: int, d: int) -> None:
    """Each chunk alone, added one after the other, is the whole to the bit; backwards it is not."""
    k = 1
    chunk = rows_per_chunk(d * k + k)
    x, weight, target = random(torch.float64, (n, d), (k, d), (n, k))
    parts = [
        _ops.linear_mse(x[i : i + chunk], weight, None, target[i : i + chunk], "sum", False)[:2]
        for i in range(0, n, chunk)
    ]
    whole = _ops.linear_mse(x, weight, None, target, "sum", False)[:2]

    def added(chunks: Iterable[Results]) -> Results:
        columns = zip(*chunks, strict=True)
        return tuple(sum(column, torch.zeros_like(column[0])) for column in columns)

    assert len(parts) == 10
    assert equal(added(parts), whole)
    assert not equal(added(reversed(parts)), whole)


@pytest.mark.parametrize("case", ["fit of a line", "fit of few points", "fit of a polynomial"])
def test_a_fit_may_be_cut_anywhere(case: str, dtype: torch.dtype) -> None:
    """Epochs in one call, in two, and one by one: momentum and parameters carry over exactly."""
    makers: dict[str, tuple[Callable[[], torch.nn.Module], list[tuple[int, ...]]]] = {
        "fit of a line": (lambda: nn.LinearRegression(1), [(9_001, 1), (9_001, 1)]),
        "fit of few points": (lambda: nn.LinearRegression(3), [(17, 3), (17, 1)]),
        "fit of a polynomial": (lambda: nn.PolynomialRegression(3), [(9_001,), (9_001,)]),
    }
    make, shapes = makers[case]
    x, y = random(dtype, *shapes)
    loss_fn = torch.nn.MSELoss()
    results = []
    for cuts in ((12,), (5, 7), (1,) * 12, ()):
        torch.manual_seed(0)
        model = make().to(dtype)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, dampening=0.1)
        losses = [
            gdcore.fit(model, loss_fn, optimizer, (x, y), epochs=n, method="stepwise").loss
            for n in cuts
        ]
        if not cuts:
            step = gdcore.train_step(model, loss_fn, optimizer)
            losses = [step(x, y)[None] for _ in range(12)]
        results.append((torch.cat(losses), *(p.detach() for p in model.parameters())))
    assert all(equal(result, results[0]) for result in results)
