"""Weighted losses against the exact sums: every kernel that takes weights, size and layout.

A weight multiplies its residual once, one rounding more than the tests of each kernel count, and
that product goes into every sum. The weights are eighths, whose sums are exact in either dtype.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gdcore import _ops

from ..devices import CUDA
from . import test_legendre as legendre
from . import test_linear_mse as linear
from . import test_mse as plain
from . import test_polynomial_mse as polynomial
from .layouts import MATRICES, VECTORS, contiguous
from .rounding import RUN_OF_RESIDUALS, bounded, check
from .sizes import LANES, around_a_chunk, around_lanes, rows_per_chunk

Run = Callable[[str, Tensor | None], tuple[Tensor | None, ...]]


def eighths(dtype: torch.dtype, *shape: int) -> Tensor:
    """1/8 to 15/8, no two neighbours alike."""
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(1, 16, shape, generator=generator).to(dtype) / 8


def on(device: torch.device) -> Any:
    """The ops there, of tensors that are the CPU's."""

    def moved(name: str) -> Callable[..., tuple[Tensor, ...]]:
        def op(*given: Any) -> tuple[Tensor, ...]:
            there = (a.to(device) if isinstance(a, Tensor) else a for a in given)
            return tuple(t.cpu() for t in _ops.implementation(name, False)(*there))

        return op

    names = ("mse", "linear_mse", "polynomial_mse", "legendre_mse")
    return SimpleNamespace(**{name: moved(name) for name in names})


def check_mse(input: Tensor, target: Tensor, weight: Tensor, what: str, ops: Any = _ops) -> None:
    residual = bounded(input) - bounded(target)
    weighted = residual * bounded(weight)
    losses = weighted * residual
    for reduction, divisor in (("none", 1), ("mean", weight.sum().item()), ("sum", 1)):
        loss, gradient = ops.mse(input, target, reduction, True, weight)
        if reduction == "none":
            check(loss, losses, f"losses of {what}")
        else:
            check(loss, losses.reshape(-1).total().result(1, divisor), f"{reduction} of {what}")
        slope = weighted.result(2, divisor)
        check(gradient, slope if divisor == 1 else slope.result(1, 1), f"gradient of {what}")


def check_linear(p: linear.Problem, weight: Tensor, what: str, ops: Any = _ops) -> None:
    x, w = bounded(p.x), bounded(p.weight)
    ones = torch.ones(len(p.x), 1, dtype=p.x.dtype)
    assert p.bias is not None
    inputs = bounded(torch.cat([p.x, ones], 1))
    prediction = inputs.dot(bounded(torch.cat([p.weight, p.bias[:, None]], 1)).T)
    residual = prediction - bounded(p.target)
    weighted = residual * bounded(weight)
    flat, flat_weighted = residual.reshape(-1, 1), weighted.reshape(-1, 1)
    exact = {
        "loss": flat_weighted.over_rows(flat, RUN_OF_RESIDUALS).reshape(),
        "dweight": weighted.over_rows(x),
        "dbias": weighted.over_rows(bounded(ones)).reshape(-1),
        "dx": weighted.dot(w, len(p.weight) + 3),
    }
    for reduction, divisor in (("mean", weight.sum().item()), ("sum", 1)):
        results = zip(linear.NAMES, ops.linear_mse(*p, reduction, True, weight), strict=True)
        for name, result in results:
            assert result is not None
            wanted = exact[name].result(1 if name == "loss" else 2, divisor)
            check(result, wanted, f"{name} of {what}, {reduction}")


def check_polynomial(p: polynomial.Problem, weight: Tensor, what: str, ops: Any = _ops) -> None:
    x, coefficients = bounded(p.x), bounded(p.coefficients)
    prediction = coefficients[-1]
    for m in reversed(range(len(p.coefficients) - 1)):
        prediction = prediction * x + coefficients[m]
    residual = prediction - bounded(p.target)
    term = residual * bounded(weight)
    squares, sums = (term * residual).total(), [term.total()]
    for _ in p.coefficients[1:]:
        term = term * x
        sums.append(term.total())
    for reduction, divisor in (("mean", weight.sum().item()), ("sum", 1)):
        loss, gradient = ops.polynomial_mse(*p, reduction, weight)
        check(loss, squares.result(1, divisor), f"loss of {what}, {reduction}")
        for m, (value, exact) in enumerate(zip(gradient, sums, strict=True)):
            check(value, exact.result(2, divisor), f"gradient {m} of {what}, {reduction}")


def check_legendre(p: legendre.Problem, weight: Tensor, what: str, ops: Any = _ops) -> None:
    x, a, b, c, d, target = map(bounded, p)
    u = d * x + c
    p3 = u * legendre.shifted(u * u, 2.5)
    residual = b * p3 + a - target
    term = residual * bounded(weight)
    slope = term * legendre.shifted(u * u, 7.5)
    sums = {
        "loss": (term * residual).total(),
        "a": term.total(),
        "b": (term * p3).total(),
        "c": slope.total() * b,
        "d": (slope * x).total() * b,
    }
    for reduction, divisor in (("mean", weight.sum().item()), ("sum", 1)):
        results = zip(legendre.NAMES, ops.legendre_mse(*p, reduction, weight), strict=True)
        for name, result in results:
            wanted = sums[name].result(1 if name == "loss" else 2, divisor)
            check(result, wanted, f"{name} of {what}, {reduction}")


@pytest.mark.usefixtures("instruction_set")
def test_legendre_sizes(dtype: torch.dtype) -> None:
    for n in [*around_lanes(dtype), rows_per_chunk(4) + 1]:
        check_legendre(legendre.make(n, dtype), eighths(dtype, n), f"{n} points")


@pytest.mark.usefixtures("instruction_set")
def test_mse_sizes(dtype: torch.dtype) -> None:
    for n in around_lanes(dtype) + around_a_chunk(2):
        check_mse(*plain.make(dtype, n), eighths(dtype, n), f"{n} elements")
        check_mse(*plain.make(dtype, n, 3), eighths(dtype, n, 3), f"{n} rows of 3")
    check_mse(*plain.make(dtype, 2, 3, 5), eighths(dtype, 2, 3, 5), "three dimensions")


# Every count of columns and of outputs at which the kernels' loops change.
@pytest.mark.parametrize(("d", "k"), [*linear.SHAPES, (2, 1), (4, 1), (15, 7), (16, 1), (1, 8)])
@pytest.mark.usefixtures("instruction_set")
def test_linear_sizes(dtype: torch.dtype, d: int, k: int) -> None:
    sizes = [*around_lanes(dtype), rows_per_chunk(d * k + k) + 1]
    for n in sizes:
        check_linear(linear.make(n, d, k, True, dtype), eighths(dtype, n, k), f"{n} rows")


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4, 16])
@pytest.mark.usefixtures("instruction_set")
def test_polynomial_sizes(dtype: torch.dtype, degree: int) -> None:
    for n in [*around_lanes(dtype), rows_per_chunk(degree + 1) + 1]:
        check_polynomial(polynomial.make(n, degree, dtype), eighths(dtype, n), f"{n} points")


@pytest.mark.parametrize("device", ["emulated", CUDA], indirect=True)
def test_on_a_device(dtype: torch.dtype, device: torch.device) -> None:
    ops = on(device)
    with torch.device("cpu"):
        for n in (1, 31, 1100):
            check_mse(*plain.make(dtype, n, 3), eighths(dtype, n, 3), f"{n} rows of 3", ops)
            check_legendre(legendre.make(n, dtype), eighths(dtype, n), f"{n} points", ops)
            for degree in (0, 3):
                p = polynomial.make(n, degree, dtype)
                check_polynomial(p, eighths(dtype, n), f"{n} points, degree {degree}", ops)
            for d, k in ((1, 1), (8, 5), (64, 1)):
                q = linear.make(n, d, k, True, dtype)
                check_linear(q, eighths(dtype, n, k), f"{n} rows of {d}, {k} outputs", ops)


def runs(dtype: torch.dtype, n: int) -> dict[str, tuple[Run, tuple[int, ...]]]:
    """Each kernel as a function of its weights, and their shape."""

    def linear_run(d: int, k: int) -> Run:
        p = linear.make(n, d, k, True, dtype)
        return lambda reduction, weight: _ops.linear_mse(*p, reduction, True, weight)

    def mse_run(*shape: int) -> Run:
        pair = plain.make(dtype, *shape)
        return lambda reduction, weight: _ops.mse(*pair, reduction, True, weight)

    def polynomial_run(degree: int) -> Run:
        p = polynomial.make(n, degree, dtype)
        return lambda reduction, weight: _ops.polynomial_mse(*p, reduction, weight)

    found: dict[str, tuple[Run, tuple[int, ...]]] = {
        f"linear {d} {k}": (linear_run(d, k), (n, k)) for d, k in linear.SHAPES
    }
    points = legendre.make(n, dtype)
    found["legendre"] = (lambda reduction, w: _ops.legendre_mse(*points, reduction, w), (n,))
    found |= {f"polynomial {m}": (polynomial_run(m), (n,)) for m in (1, 2, 3, 7)}
    return found | {"mse": (mse_run(n), (n,)), "mse of a matrix": (mse_run(n, 3), (n, 3))}


def equal(results: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    return all(map(torch.equal, results, others))


@pytest.mark.usefixtures("instruction_set")
def test_layouts(dtype: torch.dtype) -> None:
    for name, (run, shape) in runs(dtype, 2 * LANES[dtype] + 1).items():
        weight = eighths(dtype, *shape)
        for layout, arrange in (VECTORS if len(shape) == 1 else MATRICES).items():
            arranged = arrange(weight)
            results = run("mean", arranged), run("mean", contiguous(arranged))
            assert equal(*results), f"{name}, {layout}"


@pytest.mark.usefixtures("instruction_set")
def test_equal_weights_are_none(dtype: torch.dtype) -> None:
    """To the bit where nothing is rounded: a mean does not depend on a power of two."""
    for name, (run, shape) in runs(dtype, 2 * LANES[dtype] + 1).items():
        for value in (1.0, 4.0):
            weight = torch.full(shape, value, dtype=dtype)
            assert equal(run("mean", weight), run("mean", None)), name
        halves = run("sum", torch.full(shape, 0.5, dtype=dtype))
        assert equal(tuple(2 * t for t in halves if t is not None), run("sum", None)), name


@pytest.mark.usefixtures("instruction_set")
def test_zero_weights(dtype: torch.dtype) -> None:
    """Rows without weight count for nothing; without any weight at all the mean is 0 / 0."""
    for name, (run, shape) in runs(dtype, 2 * LANES[dtype] + 3).items():
        nothing = torch.zeros(shape, dtype=dtype)
        assert all(t is not None and t.isnan().all() for t in run("mean", nothing)), name
        assert all(t is not None and (t == 0).all() for t in run("sum", nothing)), name
        one = nothing.clone()
        one[-1] = 2.0
        for result in run("sum", one):
            assert result is not None
            if result.dim() > 0 and result.shape[0] == shape[0]:  # one for each row
                assert (result[:-1] == 0).all(), name
                assert (result[-1] != 0).all(), name
    p = linear.make(2 * LANES[dtype] + 1, 3, 1, True, dtype)
    last = torch.zeros(len(p.x), 1, dtype=dtype)
    last[-1] = 1.0
    alone = p._replace(x=p.x[-1:], target=p.target[-1:])
    for result, other in zip(
        _ops.linear_mse(*p, "mean", False, last)[:3],
        _ops.linear_mse(*alone, "mean", False)[:3],
        strict=True,
    ):
        assert result is not None
        assert other is not None
        assert torch.equal(result, other)


@pytest.mark.usefixtures("instruction_set")
def test_no_rows(dtype: torch.dtype) -> None:
    for name, (run, shape) in runs(dtype, 0).items():
        weight = torch.empty(shape, dtype=dtype)
        loss, *gradients = run("mean", weight)
        assert loss is not None and loss.isnan(), name  # noqa: PT018
        assert all(g is not None and (g == 0).all() for g in gradients), name


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.usefixtures("instruction_set")
def test_not_finite(dtype: torch.dtype, value: float) -> None:
    for name, (run, shape) in runs(dtype, LANES[dtype] + 3).items():
        weight = torch.ones(shape, dtype=dtype)
        weight[-1] = value
        loss, *_ = run("sum", weight)
        assert loss is not None and not loss.isfinite(), name  # noqa: PT018


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_and_instruction_sets(
    dtype: torch.dtype, set_threads: Callable[[int], None]
) -> None:
    """Several chunks, weights whose sums round: equal to the bit however they are shared."""
    before = _ops.active_instruction_set()
    generator = torch.Generator().manual_seed(5)
    n, first = 60_001, None
    x, target, weight = torch.rand(3, n, 3, dtype=dtype, generator=generator)
    model = torch.rand(3, 3, dtype=dtype, generator=generator)
    try:
        for name in _ops.available_instruction_sets():
            _ops.choose_instruction_set(name)
            for threads in (1, 2, 3):
                set_threads(threads)
                results = (
                    *_ops.linear_mse(x, model, None, target, "mean", True, weight)[:2],
                    *_ops.mse(x, target, "mean", True, weight),
                    *_ops.polynomial_mse(x[:, 0], model[0], target[:, 0], "mean", weight[:, 0]),
                )
                first = first or results
                assert equal(results, first), f"{name}, {threads} threads"
    finally:
        _ops.choose_instruction_set(before)
