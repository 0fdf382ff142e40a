"""The losses' kernels, emulated and on a device, against the exact sums: sizes, shapes, layouts,
order of threads.

The bounds are those of the kernels for the CPU (tests/kernels): here at most 32 rows are summed in
the dtype, fewer than there, and the rest in double.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ..devices import CUDA
from ..kernels import test_legendre as legendre
from ..kernels import test_linear_mse as linear
from ..kernels import test_mse as elementwise
from ..kernels import test_polynomial_mse as polynomial
from ..kernels.layouts import MATRICES, VECTORS, contiguous
from ..kernels.rounding import Bounded, bounded, check
from .emulator import Emulator, gradient_like
from .on_device import OnDevice

# A line, one lane for a row, groups of 2 to 32 lanes, several vectors to a lane, blocks of outputs.
SHAPES = ((1, 1), (3, 1), (5, 2), (8, 5), (17, 1), (33, 7), (65, 1), (200, 2), (300, 1))
TILE = {torch.float32: 2048, torch.float64: 1024}


@pytest.fixture(params=["emulated", CUDA])
def kernels(request: pytest.FixtureRequest) -> Any:
    return OnDevice() if request.param == "cuda" else request.getfixturevalue("emulated")


def empty_like(p: Tensor) -> Tensor:
    return torch.full_like(p, torch.nan, memory_format=torch.contiguous_format)


def linear_results(e: Emulator, p: linear.Problem, mean: bool, with_dx: bool) -> dict[str, Tensor]:
    parameters = [p.weight] if p.bias is None else [p.weight, p.bias]
    gradients = [gradient_like(t) for t in parameters]
    dx = gradient_like(p.x) if with_dx else None
    loss = p.x.new_full((), torch.nan)
    e.loss("linear", (p.x, p.target, None), parameters, mean, loss, gradients, dx)
    found = dict(zip(("dweight", "dbias"), gradients, strict=False))
    return {"loss": loss, **found} if dx is None else {"loss": loss, **found, "dx": dx}


@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_linear(kernels: Emulator, dtype: torch.dtype, d: int, k: int) -> None:
    one_pass = k <= 2 and d < 200
    for n, bias, mean in ((1, True, True), (70, False, False), (1100, True, True)):
        p = linear.make(n, d, k, bias, dtype)
        exact = linear.exact_sums(p)
        for name, result in linear_results(kernels, p, mean, one_pass).items():
            wanted = exact[name].result(1 if name == "loss" else 2, n * k if mean else 1)
            check(result, wanted, f"{name} of {n} rows")


@pytest.mark.parametrize("layout", MATRICES)
@pytest.mark.parametrize(("d", "k"), [(1, 1), (3, 1), (8, 2), (64, 1), (160, 1)])
def test_linear_layouts(kernels: Emulator, dtype: torch.dtype, d: int, k: int, layout: str) -> None:
    """Strides and alignment change no bit."""
    p = linear.make(50, d, k, True, dtype)
    p = p._replace(x=MATRICES[layout](p.x))
    p = p._replace(target=MATRICES[layout](p.target))
    same = p._replace(x=contiguous(p.x), target=contiguous(p.target))
    ours, theirs = (linear_results(kernels, q, True, False) for q in (p, same))
    for name, result in ours.items():
        assert torch.equal(result, theirs[name]), name


@pytest.mark.parametrize(("d", "k"), [(1, 1), (8, 5), (65, 1), (300, 1)])
def test_order_of_threads(kernels: Emulator, d: int, k: int) -> None:
    """Whichever thread and block comes first: the sums have an order of their own."""
    p = linear.make(2100, d, k, True, torch.float32)
    results = []
    for backwards in (False, True):
        kernels.backwards = backwards
        results.append(linear_results(kernels, p, True, k == 1 and d < 300))
    for name, result in results[0].items():
        assert torch.equal(result, results[1][name]), name


def polynomial_results(
    e: Emulator, p: polynomial.Problem, weight: Tensor | None, mean: bool
) -> tuple[Tensor, Tensor]:
    loss, gradient = p.x.new_full((), torch.nan), empty_like(p.coefficients)
    e.loss("polynomial", (p.x, p.target, weight), [p.coefficients], mean, loss, [gradient])
    return loss, gradient


@pytest.mark.parametrize("degree", polynomial.SOME_DEGREES)
def test_polynomial(kernels: Emulator, dtype: torch.dtype, degree: int) -> None:
    for n, divisor in ((7, 1), (3 * TILE[dtype] + 5, 3 * TILE[dtype] + 5)):
        p = polynomial.make(n, degree, dtype)
        squares, sums = polynomial.exact_sums(p)
        loss, gradient = polynomial_results(kernels, p, None, divisor > 1)
        check(loss, squares.result(1, divisor), f"loss of {n}")
        for m, exact in enumerate(sums):
            check(gradient[m], exact.result(2, divisor), f"power {m} of {n}")


@pytest.mark.parametrize("layout", VECTORS)
def test_polynomial_layouts(kernels: Emulator, dtype: torch.dtype, layout: str) -> None:
    p = polynomial.make(300, 3, dtype)
    p = p._replace(x=VECTORS[layout](p.x))
    ones = torch.rand(300, dtype=dtype) + 0.5
    p = p._replace(target=VECTORS[layout](p.target))
    same = p._replace(x=contiguous(p.x), target=contiguous(p.target))
    weight = VECTORS[layout](ones)
    ours = polynomial_results(kernels, p, weight, True)
    assert all(map(torch.equal, ours, polynomial_results(kernels, same, contiguous(weight), True)))


def test_weights(kernels: Emulator, dtype: torch.dtype) -> None:
    """The mean is over the sum of the weights, which stays on the device."""
    p = polynomial.make(2500, 2, dtype)
    weight = torch.rand(2500, dtype=dtype) + 0.5
    squares, sums = polynomial.exact_sums(p, weight)
    divisor = bounded(weight).total()
    loss, gradient = polynomial_results(kernels, p, weight, True)
    check(loss, (squares / divisor).result(1, 1), "loss")
    for m, exact in enumerate(sums):
        check(gradient[m], (exact / divisor).result(2, 1), f"power {m}")


@pytest.mark.parametrize(("d", "k"), [(5, 2), (40, 3)])
def test_linear_weights(kernels: Emulator, dtype: torch.dtype, d: int, k: int) -> None:
    p = linear.make(90, d, k, True, dtype)
    assert p.bias is not None
    weight = torch.rand(90, k, dtype=dtype) + 0.5
    exact = linear.exact_sums(p, weight)
    divisor = bounded(weight).reshape(-1).total()
    loss, theta = p.x.new_full((), torch.nan), [p.weight, p.bias]
    dweight, dbias, dx = (empty_like(t) for t in (*theta, p.x))
    kernels.loss("linear", (p.x, p.target, weight), theta, True, loss, [dweight, dbias], dx)
    for name, result in zip(linear.NAMES, (loss, dweight, dbias, dx), strict=True):
        check(result, (exact[name] / divisor).result(1 if name == "loss" else 2, 1), name)


def test_legendre(kernels: Emulator, dtype: torch.dtype) -> None:
    for n in (1, 70, TILE[dtype] + 3):
        p = legendre.make(n, dtype)
        exact = legendre.exact_sums(p)
        loss = p.x.new_full((), torch.nan)
        gradients = [empty_like(t) for t in (p.a, p.b, p.c, p.d)]
        theta = [t.clone() for t in (p.a, p.b, p.c, p.d)]
        kernels.loss("legendre", (p.x, p.target, None), theta, True, loss, gradients)
        results = zip(legendre.NAMES, [loss, *gradients], exact, strict=True)
        for name, result, sums in results:
            check(result, sums.result(1 if name == "loss" else 2, n), f"{name} of {n}")


def mse_results(
    e: Emulator, input: Tensor, target: Tensor, weight: Tensor | None, reduction: str
) -> tuple[Tensor, Tensor]:
    gradient = empty_like(input)
    if reduction == "none":
        losses = empty_like(input)
        e.mse(input, target, weight, False, None, losses, gradient)
        return losses, gradient
    loss = input.new_full((), torch.nan)
    e.mse(input, target, weight, reduction == "mean", loss, None, gradient)
    return loss, gradient


def test_mse(kernels: Emulator, dtype: torch.dtype) -> None:
    for shape in ((1,), (5, 3), (TILE[dtype] + 1,), (3, TILE[dtype])):
        input, target = elementwise.make(dtype, *shape)
        residual = bounded(input) - bounded(target)
        squares = residual * residual
        for reduction, divisor in (("none", 1), ("mean", input.numel()), ("sum", 1)):
            loss, gradient = mse_results(kernels, input, target, None, reduction)
            wanted = squares
            if reduction != "none":
                wanted = squares.reshape(-1).total().result(1, divisor)
            check(loss, wanted, f"{reduction} of {shape}")
            slope: Bounded = residual.result(2, divisor)
            check(gradient, slope if divisor == 1 else slope.result(1, 1), f"slope of {shape}")


@pytest.mark.parametrize("layout", MATRICES)
def test_mse_layouts(kernels: Emulator, dtype: torch.dtype, layout: str) -> None:
    input, target = elementwise.make(dtype, 37, 9)
    weight = torch.rand(37, 9, dtype=dtype) + 0.5
    input = MATRICES[layout](input)
    data = (MATRICES[layout](target), MATRICES[layout](weight))
    same = [contiguous(t) for t in (input, *data)]
    for reduction in ("none", "mean"):
        ours = mse_results(kernels, input, *data, reduction)
        theirs = mse_results(kernels, same[0], same[1], same[2], reduction)
        assert all(map(torch.equal, ours, theirs)), reduction


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize(("d", "k"), [(1, 1), (3, 1), (16, 3), (300, 1)])
def test_half_types(kernels: Emulator, half: torch.dtype, d: int, k: int) -> None:
    """Read as float32, computed in float32; the loss is rounded, the gradients are not."""
    stored = linear.Problem(
        *(None if t is None else t.to(half) for t in linear.make(77, d, k, True, torch.float32))
    )
    wide = linear.Problem(*(None if t is None else t.double() for t in stored))
    assert wide.bias is not None
    of = tuple(t.clone().requires_grad_() for t in (wide.weight, wide.bias, wide.x))
    plain = torch.nn.functional.mse_loss(torch.nn.functional.linear(of[2], *of[:2]), wide.target)
    with_dx = k == 1 and d < 300
    slopes = torch.autograd.grad(plain, of[: 3 if with_dx else 2])
    loss, *found = linear_results(kernels, stored, True, with_dx).values()
    unit = torch.finfo(half).eps / 2
    # One rounding to the half type; float32's own are 2⁻⁸ times that, even 300 of them.
    torch.testing.assert_close(loss.double(), plain.detach(), rtol=unit * 2, atol=0)
    for result, exact in zip(found, slopes, strict=True):
        largest = exact.abs().max().item()
        torch.testing.assert_close(result.double(), exact, rtol=0, atol=2.0**-17 * largest)


@pytest.mark.parametrize("model", ["linear", "polynomial"])
def test_no_rows(kernels: Emulator, model: str) -> None:
    x = torch.zeros(0, 3) if model == "linear" else torch.zeros(0)
    target = torch.zeros(0, 1) if model == "linear" else torch.zeros(0)
    theta = [torch.ones(1, 3), torch.ones(1)] if model == "linear" else [torch.ones(3)]
    for mean, wanted in ((True, torch.nan), (False, 0.0)):
        loss, gradients = torch.tensor(7.0), [empty_like(t) for t in theta]
        kernels.loss(model, (x, target, None), theta, mean, loss, gradients)
        assert torch.allclose(loss, torch.tensor(wanted), equal_nan=True)
        assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_not_finite(kernels: Emulator, value: float) -> None:
    """It spoils what PyTorch's formula lets it spoil, and no other column or output."""
    p = linear.make(40, 5, 2, True, torch.float64)
    p.target[7, 1] = value
    ours = linear_results(kernels, p, True, False)
    assert p.bias is not None
    weight, bias = (t.clone().requires_grad_() for t in (p.weight, p.bias))
    loss = torch.nn.functional.mse_loss(torch.nn.functional.linear(p.x, weight, bias), p.target)
    others = (loss, *torch.autograd.grad(loss, (weight, bias)))
    for result, other in zip(ours.values(), others, strict=True):
        assert torch.equal(result.isfinite(), other.isfinite())


@pytest.mark.parametrize("arrange", VECTORS.values(), ids=VECTORS)
def test_legendre_p3(
    kernels: Emulator, dtype: torch.dtype, arrange: Callable[[Tensor], Tensor]
) -> None:
    x = arrange(torch.linspace(-1.5, 1.5, TILE[dtype] + 9, dtype=dtype))
    grad, out = torch.linspace(1, 2, len(x), dtype=dtype), empty_like(x)
    unit = torch.finfo(dtype).eps
    kernels.legendre_p3(x, None, out)
    torch.testing.assert_close(out, (5 * x**3 - 3 * x) / 2, rtol=0, atol=20 * unit)
    kernels.legendre_p3(x, grad, out)
    torch.testing.assert_close(out, grad * (15 * x**2 - 3) / 2, rtol=0, atol=80 * unit)


@pytest.mark.parametrize("size", [0, 1, 5003])
def test_scale(kernels: Emulator, dtype: torch.dtype, size: int) -> None:
    """torch's products; times 1 nothing is written."""
    values = torch.randn(size, dtype=torch.float64).to(dtype)
    for factor in (-0.3, 1.0, 0.0):
        by = torch.tensor(factor, dtype=torch.float64).to(dtype)
        mine = values.clone()
        kernels.scale(mine, by)
        assert torch.equal(mine, values * by)
