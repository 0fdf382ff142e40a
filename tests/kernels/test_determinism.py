"""Equal to the bit: from run to run, over threads and over instruction sets.

On data of several chunks, large enough to be shared among threads. In float64 too: there a double
sum that was combined in another order shows, where rounding to float32 would hide it.
"""

from collections.abc import Callable, Iterable, Iterator

import pytest
import torch
from torch import Tensor

import gdcore
from gdcore import _ops

from .sizes import rows_per_chunk

THREADS = (1, 2, 3, 8)
RUNS = 3
# Elements from which work is shared (kSerialElements of csrc/training/objective.h).
SHARED = 2**17

Results = tuple[Tensor, ...]
Case = Callable[[torch.dtype], Callable[[], Results]]


def random(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def linear(n: int, d: int, k: int) -> Case:
    def case(dtype: torch.dtype) -> Callable[[], Results]:
        assert n > 3 * rows_per_chunk(d * k + k)
        assert n * (d * k + k) > SHARED
        x, weight, bias, target = random(dtype, (n, d), (k, d), (k,), (n, k))
        return lambda: _ops.linear_mse(x, weight, bias, target, "mean", True)

    return case


def polynomial(n: int, degree: int) -> Case:
    def case(dtype: torch.dtype) -> Callable[[], Results]:
        x, coefficients, target = random(dtype, (n,), (degree + 1,), (n,))
        return lambda: _ops.polynomial_mse(x, coefficients, target, "mean")

    return case


def legendre_mse(dtype: torch.dtype) -> Callable[[], Results]:
    x, a, b, c, d, target = random(dtype, (40_001,), (), (), (), (), (40_001,))
    return lambda: _ops.legendre_mse(x, a, b, c, d, target, "mean")


def mse(dtype: torch.dtype) -> Callable[[], Results]:
    input, target = random(dtype, (200_001,), (200_001,))
    return lambda: _ops.mse(input, target, "mean", True)


def legendre_p3(dtype: torch.dtype) -> Callable[[], Results]:
    x, grad = random(dtype, (SHARED + 1,), (SHARED + 1,))
    return lambda: (_ops.legendre_p3(x), _ops.legendre_p3_backward(grad, x))


def sgd(dtype: torch.dtype) -> Callable[[], Results]:
    start = random(dtype, *[(SHARED + 1,)] * 3)

    def run() -> Results:
        p, grad, buffer = (t.clone() for t in start)
        _ops.sgd(
            [p],
            [grad],
            [buffer],
            fresh=[False],
            lr=0.1,
            momentum=0.9,
            dampening=0.1,
            weight_decay=0.1,
            nesterov=True,
            maximize=True,
        )
        return p, buffer

    return run


def fit(make: Callable[[], torch.nn.Module], *shapes: tuple[int, ...]) -> Case:
    """A whole fit, with momentum: the losses, and the parameters at the end."""

    def case(dtype: torch.dtype) -> Callable[[], Results]:
        x, y = random(dtype, *shapes)

        def run() -> Results:
            torch.manual_seed(0)
            model = make().to(dtype)
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
            history = gdcore.fit(model, torch.nn.MSELoss(), optimizer, (x, y), epochs=6)
            return history.loss, *(p.detach() for p in model.parameters())

        return run

    return case


CASES: dict[str, Case] = {
    "linear_mse narrow": linear(40_001, 3, 1),
    "linear_mse few outputs": linear(20_001, 5, 3),
    "linear_mse wide": linear(8_001, 100, 1),
    "linear_mse many outputs": linear(2_601, 20, 16),
    "polynomial_mse": polynomial(40_001, 3),
    "polynomial_mse of degree 7": polynomial(20_001, 7),
    "legendre_mse": legendre_mse,
    "mse": mse,
    "legendre_p3": legendre_p3,
    "sgd": sgd,
    "fit of a line": fit(lambda: gdcore.nn.LinearRegression(1), (80_001, 1), (80_001, 1)),
    "fit of a plane": fit(lambda: gdcore.nn.LinearRegression(65), (8_001, 65), (8_001, 1)),
    "fit of many outputs": fit(lambda: torch.nn.Linear(20, 16), (2_601, 20), (2_601, 16)),
    "fit of a polynomial": fit(lambda: gdcore.nn.PolynomialRegression(3), (40_001,), (40_001,)),
    "fit of a legendre": fit(gdcore.nn.LegendreRegression, (40_001,), (40_001,)),
    "fit of few points": fit(lambda: gdcore.nn.LinearRegression(3), (17, 3), (17, 1)),
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
    run = CASES[case](dtype)
    first = run()
    assert all(t.isfinite().all() and t.count_nonzero() == t.numel() for t in first)
    for name in each_instruction_set:
        for threads in THREADS:
            set_threads(threads)
            for _ in range(RUNS):
                assert equal(run(), first), f"{name}, {threads} threads"


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


@pytest.mark.parametrize(
    ("n", "d", "k"),
    [(40_001, 3, 1), (8_001, 100, 1), (2_601, 20, 16)],
    ids=["narrow", "wide", "many outputs"],
)
def test_reordered_rows_differ(dtype: torch.dtype, n: int, d: int, k: int) -> None:
    x, weight, target = random(dtype, (n, d), (k, d), (n, k))
    in_order = _ops.linear_mse(x, weight, None, target, "sum", False)
    backwards = _ops.linear_mse(x.flip(0), weight, None, target.flip(0), "sum", False)
    assert not equal(in_order, backwards)


def test_reordered_points_differ(dtype: torch.dtype) -> None:
    x, c, target = random(dtype, (40_001,), (4,), (40_001,))
    a, b, u, v = c.unbind()
    back, target_back = x.flip(0), target.flip(0)
    for in_order, backwards in (
        (
            _ops.polynomial_mse(x, c, target, "sum"),
            _ops.polynomial_mse(back, c, target_back, "sum"),
        ),
        (
            _ops.legendre_mse(x, a, b, u, v, target, "sum"),
            _ops.legendre_mse(back, a, b, u, v, target_back, "sum"),
        ),
        (_ops.mse(x, target, "sum", False), _ops.mse(back, target_back, "sum", False)),
    ):
        assert not equal(in_order, backwards)


def test_chunks_are_added_in_their_order() -> None:
    """Each chunk alone, added one after the other, is the whole to the bit; backwards it is not."""
    n, d, k = 40_001, 3, 1
    chunk = rows_per_chunk(d * k + k)
    x, weight, target = random(torch.float64, (n, d), (k, d), (n, k))
    parts = [
        _ops.linear_mse(x[i : i + chunk], weight, None, target[i : i + chunk], "sum", False)
        for i in range(0, n, chunk)
    ]
    whole = _ops.linear_mse(x, weight, None, target, "sum", False)

    def added(chunks: Iterable[Results]) -> Results:
        columns = zip(*chunks, strict=True)
        return tuple(sum(column, torch.zeros_like(column[0])) for column in columns)

    assert len(parts) == 10
    assert equal(added(parts), whole)
    assert not equal(added(reversed(parts)), whole)


@pytest.mark.parametrize("case", ["fit of a line", "fit of few points", "fit of a polynomial"])
def test_a_fit_may_be_cut_anywhere(case: str, dtype: torch.dtype) -> None:
    """Epochs in one call, in two, and one by one: momentum and parameters carry over exactly."""
    make: Callable[[], torch.nn.Module]
    make, shapes = {
        "fit of a line": (lambda: gdcore.nn.LinearRegression(1), [(9_001, 1), (9_001, 1)]),
        "fit of few points": (lambda: gdcore.nn.LinearRegression(3), [(17, 3), (17, 1)]),
        "fit of a polynomial": (lambda: gdcore.nn.PolynomialRegression(3), [(9_001,), (9_001,)]),
    }[case]
    x, y = random(dtype, *shapes)
    loss_fn = torch.nn.MSELoss()
    results = []
    for cuts in ((12,), (5, 7), (1,) * 12, ()):
        torch.manual_seed(0)
        model = make().to(dtype)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, dampening=0.1)
        losses = [gdcore.fit(model, loss_fn, optimizer, (x, y), epochs=n).loss for n in cuts]
        if not cuts:
            step = gdcore.train_step(model, loss_fn, optimizer)
            losses = [step(x, y)[None] for _ in range(12)]
        results.append((torch.cat(losses), *(p.detach() for p in model.parameters())))
    assert all(equal(result, results[0]) for result in results)
