"""Equal to the bit: from run to run, over threads and over instruction sets.

On data of several chunks, large enough to be shared among threads. In float64 too: there a double
sum that was combined in another order shows, where rounding to float32 would hide it.
"""

from collections.abc import Callable, Iterable, Iterator

import pytest
import torch
from torch import Tensor

import gdcore
from gdcore import _ops, nn

from .determinism_cases import CASES, Results, random
from .sizes import rows_per_chunk

# All up to eight; the last three times.
THREADS = (1, 2, 3, 4, 5, 6, 7, 8, 8, 8)


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
HIDDEN_IN_FLOAT32 = ("mse", "compress", "compress, wide", "fit of few points")
HIDDEN = ("linear_mse of half types",)  # rounded to a half type


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        pytest.param(case, dtype, id=f"{case}-{dtype}".replace("torch.", ""))
        for case, (rows, _) in CASES.items()
        for dtype in (torch.float32, torch.float64)
        if rows > 0
        and case not in HIDDEN
        and not (dtype is torch.float32 and case in HIDDEN_IN_FLOAT32)
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
