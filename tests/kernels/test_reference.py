"""float32 kernels against `gdcore.reference` in float64, its gradients by autograd.

The exact sums of the other files bound how far a kernel may be; what the reference rounds in
float64 is 2⁻²⁹ of that. So these tests also show that the reference states the kernels' formulas.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from gdcore import _ops, reference

from . import test_legendre as legendre
from . import test_linear_mse as linear
from . import test_polynomial_mse as polynomial
from .rounding import Bounded, bounded, check

ROWS = (1, 19, 700)


def check_reference(
    formula: Callable[..., Tensor],
    tensors: Sequence[Tensor | None],
    results: Sequence[Tensor],
    bounds: Sequence[Bounded],
    wanted: Sequence[int],
) -> None:
    """Compare loss and gradients, those of ``tensors[i]`` for i in ``wanted``."""
    doubles = [None if t is None else t.double() for t in tensors]
    variables = [doubles[i].requires_grad_() for i in wanted]  # type: ignore[union-attr]
    loss = formula(*doubles)
    gradients = torch.autograd.grad(loss, variables)
    for i, (actual, exact, bound) in enumerate(
        zip(results, (loss, *gradients), bounds, strict=True)
    ):
        assert bound.value.shape == exact.shape
        value = exact.detach().numpy().astype(np.longdouble)
        check(actual, Bounded(value, bound.error, bound.unit), f"result {i}")


def divided(sums: Sequence[Bounded], divisor: int) -> list[Bounded]:
    loss, *gradients = sums
    return [loss.result(1, divisor), *(g.result(2, divisor) for g in gradients)]


@pytest.mark.parametrize("n", ROWS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("d", "k"), linear.SHAPES)
@pytest.mark.usefixtures("instruction_set")
def test_linear_mse(n: int, d: int, k: int, bias: bool) -> None:
    p = linear.make(n, d, k, bias, torch.float32)
    sums = linear.exact_sums(p)
    loss, dweight, dbias, dx = _ops.linear_mse(*p, "mean", True)
    names, results, wanted = ["loss", "dx", "dweight"], [loss, dx, dweight], [0, 1]
    if bias:
        names, results, wanted = [*names, "dbias"], [*results, dbias], [*wanted, 2]
    bounds = divided([sums[name] for name in names], n * k)
    check_reference(reference.linear_mse_loss, p, results, bounds, wanted)


@pytest.mark.parametrize("n", ROWS)
@pytest.mark.parametrize("degree", polynomial.SOME_DEGREES)
@pytest.mark.usefixtures("instruction_set")
def test_polynomial_mse(n: int, degree: int) -> None:
    p = polynomial.make(n, degree, torch.float32)
    loss, sums = polynomial.exact_sums(p)
    gradient = Bounded(
        np.stack([s.value for s in sums]), np.stack([s.error for s in sums]), loss.unit
    )
    results = _ops.polynomial_mse(*p, "mean")
    bounds = divided([loss, gradient], n)
    check_reference(reference.polynomial_mse_loss, p, results, bounds, [1])


@pytest.mark.parametrize("n", ROWS)
@pytest.mark.usefixtures("instruction_set")
def test_legendre_mse(n: int) -> None:
    p = legendre.make(n, torch.float32)
    bounds = divided(legendre.exact_sums(p), n)
    results = _ops.legendre_mse(*p, "mean")
    check_reference(reference.legendre_mse_loss, p, results, bounds, [1, 2, 3, 4])


@pytest.mark.parametrize("n", ROWS)
@pytest.mark.usefixtures("instruction_set")
def test_mse(n: int) -> None:
    input, target = legendre.make(n, torch.float32)[0], torch.full((n,), -2.0)
    residual = bounded(input) - bounded(target)
    bounds = divided([(residual * residual).total(), residual.result(1, 1)], n)
    results = _ops.mse(input, target, "mean", True)
    check_reference(reference.mse_loss, (input, target), results, bounds, [0])


@pytest.mark.usefixtures("instruction_set")
def test_legendre_p3() -> None:
    x = torch.linspace(-2, 2, 1001)
    double = x.double()
    square = bounded(x) * bounded(x)
    value = bounded(x) * legendre.shifted(square, 2.5)
    slope = legendre.shifted(square, 7.5)
    for actual, exact, bound in (
        (_ops.legendre_p3(x), reference.legendre_p3(double), value),
        (
            _ops.legendre_p3_backward(torch.ones_like(x), x),
            reference.legendre_p3_derivative(double),
            slope,
        ),
    ):
        expected = exact.numpy().astype(np.longdouble)
        # At x = 0 the value is 0, exactly.
        keep = expected != 0
        assert not actual[torch.from_numpy(~keep)].any()
        check(
            actual[torch.from_numpy(keep)],
            Bounded(expected[keep], bound.error[keep], bound.unit),
            "P₃",
        )
