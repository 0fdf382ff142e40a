"""What contenders must come to: float64 values, and bounds that rounding keeps to."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import agreement
from agreement_outputs import expected_long, expected_outputs
from linear import Problem


@pytest.mark.parametrize(
    ("loss", "values"),
    [(1.1, [1.0, 2.0]), (1.0, [1.0, 2.1]), (math.nan, [1.0, 2.0]), (1.0, [math.nan, 2.0])],
)
def test_expected_refuses_what_is_further_away(loss: float, values: list[float]) -> None:
    expected = agreement.Expected(1.0, 0.01, np.array([1.0, 2.0]), np.array([0.01, 0.01]))
    expected.check(agreement.outcome(1.005, [1.005, 1.995]))
    with pytest.raises(agreement.DisagreementError):
        expected.check(agreement.outcome(loss, values))


def test_expected_gradient_is_autograds_in_float64() -> None:
    p = Problem.random(50, 3, seed=1)
    expected = agreement.expected_gradient(p.affine(), p.targets(), p.flat_start(), mean=True)
    model = p.model().double()
    loss = torch.nn.functional.mse_loss(model(p.x.double()), p.y.double())
    found = torch.autograd.grad(loss, list(model.parameters()))
    grads = np.concatenate([grad.numpy().ravel() for grad in found])
    # Sums of 50 float64 terms of about 1, against a bound for float32.
    np.testing.assert_allclose(expected.values, grads, rtol=0, atol=1e-13)
    assert expected.loss == pytest.approx(loss.item(), rel=1e-14)
    assert 1e-8 < expected.errors.max() < 1e-4


def test_an_unstable_rate_has_no_expected_descent() -> None:
    p = replace(Problem.random(50, 3, seed=1), lr=3.0)
    arrays = (p.affine(), p.targets(), p.flat_start())
    with pytest.raises(ValueError, match="may not be stable at step 1"):
        agreement.expected_descent(*arrays, lr=p.lr, mean=True, steps=[1])


@pytest.mark.parametrize("epochs", [1, 7, 100])
def test_the_closed_form_is_the_descent(epochs: int) -> None:
    p = Problem.random(50, 3, seed=1)
    arrays = (p.affine(), p.targets(), p.flat_start())
    steps = agreement.expected_descent(*arrays, lr=p.lr, mean=True, steps=[epochs])[epochs]
    # The two differ by float64's rounding of a hundred steps.
    np.testing.assert_allclose(expected_long(p, epochs).values, steps.values, rtol=0, atol=1e-12)


def test_several_outputs_of_one_are_one() -> None:
    p = Problem.random(50, 3, seed=1)
    arrays = (p.affine(), p.targets(), p.flat_start())
    one = agreement.expected_descent(*arrays, lr=p.lr, mean=True, steps=[5])[5]
    several = expected_outputs(p, 5)
    np.testing.assert_allclose(several.values, one.values, rtol=0, atol=1e-13)
    assert several.loss == pytest.approx(one.loss, rel=1e-13)
    np.testing.assert_allclose(several.errors, one.errors, rtol=1e-6)
