"""gdcore.functional under autograd: derivatives of both orders, and all else it asks of a part."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import gdcore

from .rounding import assert_within_rounding

pytestmark = pytest.mark.usefixtures("device")

functional = gdcore.functional
Formula = Callable[..., Tensor]


def leaf(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def check_both_orders(formula: Formula, *inputs: Tensor) -> None:
    """gradcheck and gradgradcheck, on a gradient that is not zero anywhere.

    Many elements are checked along random directions, few one by one.
    """
    output = formula(*inputs)
    wanted = [t for t in inputs if t.requires_grad]
    for gradient in torch.autograd.grad(output, wanted, torch.ones_like(output)):
        assert (gradient != 0).all(), "a gradient of zero shows nothing"
    directions = sum(t.numel() for t in wanted) > 16
    assert gradcheck(formula, inputs, fast_mode=directions)
    assert gradgradcheck(formula, inputs, fast_mode=directions)


@pytest.mark.parametrize("needs", ["input", "target", "both"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_loss(reduction: str, needs: str) -> None:
    input, target = leaf(4, 3), leaf(4, 3)
    input.requires_grad_(needs != "target")
    target.requires_grad_(needs != "input")
    check_both_orders(lambda i, t: functional.mse_loss(i, t, reduction), input, target)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("outputs", [1, 3, 9])
@pytest.mark.parametrize("columns", [2, 15, 16, 17])
def test_linear_mse_loss(columns: int, outputs: int, reduction: str) -> None:
    x, weight, bias = leaf(3, columns), leaf(outputs, columns), leaf(outputs)
    target = torch.randn(3, outputs, dtype=torch.float64)
    check_both_orders(
        lambda x, w, b: functional.linear_mse_loss(x, w, b, target, reduction), x, weight, bias
    )
    check_both_orders(
        lambda x, w: functional.linear_mse_loss(x, w, None, target, reduction), x, weight
    )


@pytest.mark.parametrize("needs", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_linear_mse_loss_where_some_require_grad(needs: tuple[int, ...]) -> None:
    tensors = [leaf(5, 4), leaf(2, 4), leaf(2)]
    for i, tensor in enumerate(tensors):
        tensor.requires_grad_(i in needs)
    target = torch.randn(5, 2, dtype=torch.float64)
    check_both_orders(lambda x, w, b: functional.linear_mse_loss(x, w, b, target), *tensors)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("degree", [0, 1, 3, 9])
def test_polynomial_mse_loss(degree: int, reduction: str) -> None:
    x, target = torch.randn(2, 7, dtype=torch.float64)
    check_both_orders(
        lambda c: functional.polynomial_mse_loss(x, c, target, reduction), leaf(degree + 1)
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_legendre_mse_loss(shape: tuple[int, ...], reduction: str) -> None:
    x, target = torch.randn(2, 7, dtype=torch.float64)
    check_both_orders(
        lambda a, b, c, d: functional.legendre_mse_loss(x, a, b, c, d, target, reduction),
        *(leaf(*shape) for _ in range(4)),
    )


@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_legendre_p3(shape: tuple[int, ...]) -> None:
    check_both_orders(functional.legendre_p3, leaf(*shape))


def losses() -> dict[str, tuple[Formula, list[Tensor]]]:
    """Each function with arguments that require grad where they may."""
    x, y, column = leaf(4, 3).detach(), leaf(4).detach(), leaf(4, 1).detach()
    return {
        "mse": (lambda i, t: functional.mse_loss(i, t), [leaf(4), leaf(4)]),
        "linear_mse": (
            lambda x, w, b: functional.linear_mse_loss(x, w, b, column),
            [leaf(4, 3), leaf(1, 3), leaf(1)],
        ),
        "polynomial_mse": (lambda c: functional.polynomial_mse_loss(x[:, 0], c, y), [leaf(4)]),
        "legendre_mse": (
            lambda a, b, c, d: functional.legendre_mse_loss(x[:, 0], a, b, c, d, y),
            [leaf() for _ in range(4)],
        ),
        "legendre_p3": (lambda x: functional.legendre_p3(x).sum(), [leaf(4)]),
    }


ALL = ("mse", "linear_mse", "polynomial_mse", "legendre_mse", "legendre_p3")


@pytest.mark.parametrize("name", ALL)
def test_a_saved_tensor_changed_in_place_is_an_error(name: str) -> None:
    for place in range(len(losses()[name][1])):
        formula, inputs = losses()[name]
        loss = formula(*inputs)
        with torch.no_grad():
            inputs[place].add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_a_target_changed_in_place_is_an_error() -> None:
    weight, target = leaf(1, 3), torch.zeros(4, 1, dtype=torch.float64)
    loss = functional.linear_mse_loss(leaf(4, 3), weight, None, target)
    target.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", ALL)
def test_backward_twice(name: str) -> None:
    formula, inputs = losses()[name]
    loss = formula(*inputs)
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    second = torch.autograd.grad(loss, inputs)
    assert all(map(torch.equal, first, second))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("name", ALL)
def test_a_gradient_belongs_to_whoever_gets_it(name: str) -> None:
    """Writing into it does not change what a later backward gives, scaled or not."""
    formula, inputs = losses()[name]
    loss = formula(*inputs)
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    kept = [gradient.clone() for gradient in first]
    for gradient in first:
        gradient.fill_(torch.nan)
    twice = torch.autograd.grad(loss, inputs, torch.full_like(loss, 2.0), retain_graph=True)
    for gradient, once in zip(twice, kept, strict=True):
        torch.testing.assert_close(gradient, 2 * once, rtol=1e-15, atol=0)
        gradient.fill_(torch.nan)
    assert all(map(torch.equal, torch.autograd.grad(loss, inputs), kept))


def tied() -> dict[str, tuple[Callable[..., Tensor], Tensor]]:
    """Losses of one tensor, which comes in at two places, once through a computation."""
    x, y = leaf(4, 3).detach(), leaf(4, 1).detach()
    return {
        "mse": (lambda p: functional.mse_loss(p, p.sin()), leaf(5)),
        "linear_mse": (lambda w: functional.linear_mse_loss(x, w, w.sum(1), y), leaf(1, 3)),
        "linear_mse, x": (lambda w: functional.linear_mse_loss(w, w[:1], None, y), leaf(4, 3)),
        "legendre_mse": (
            lambda t: functional.legendre_mse_loss(x[:, 0], t, 2 * t, t * t, t + 1, y[:, 0]),
            leaf(),
        ),
    }


@pytest.mark.parametrize("name", tied())
def test_an_input_computed_from_another(name: str) -> None:
    """The gradient is the same whether or not it is to be differentiated again."""
    formula, at = tied()[name]
    (plain,) = torch.autograd.grad(formula(at), at)
    (differentiable,) = torch.autograd.grad(formula(at), at, create_graph=True)
    torch.testing.assert_close(differentiable.detach(), plain, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradgradcheck(formula, (at,))


@pytest.mark.parametrize("name", ALL)
def test_gradients_accumulate(name: str) -> None:
    formula, inputs = losses()[name]
    formula(*inputs).backward()
    once = [t.grad.clone() for t in inputs if t.grad is not None]
    assert len(once) == len(inputs)
    formula(*inputs).backward()
    for tensor, grad in zip(inputs, once, strict=True):
        assert tensor.grad is not None
        assert torch.equal(tensor.grad, 2 * grad)


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_given_from_above_scales(name: str) -> None:
    formula, inputs = losses()[name]
    plain = torch.autograd.grad(formula(*inputs), inputs)
    scaled = torch.autograd.grad(-4.0 * formula(*inputs), inputs)
    assert all(torch.equal(s, -4.0 * p) for s, p in zip(scaled, plain, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_create_graph_gives_the_same_gradient_and_one_more_derivative(name: str) -> None:
    formula, inputs = losses()[name]
    plain = torch.autograd.grad(-4.0 * formula(*inputs), inputs)
    with_graph = torch.autograd.grad(-4.0 * formula(*inputs), inputs, create_graph=True)
    for actual, expected in zip(with_graph, plain, strict=True):
        assert actual.requires_grad
        # Four rows of four values of order one: fewer than 64 roundings of sums below 1e3.
        assert_within_rounding(actual, expected, torch.full_like(expected, 1e3), 64)
    norm = torch.stack([(g**2).sum() for g in with_graph]).sum()
    seconds = torch.autograd.grad(norm, inputs)
    assert all((second != 0).any() for second in seconds)


def test_hessian_of_a_line_is_that_of_torch() -> None:
    """∂²/∂w² of the mean squared error is 2 xᵀx / n, exactly representable here."""
    x, target = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.ones(4, 1)
    weight = torch.zeros(1, 1, requires_grad=True)
    for loss in (
        functional.linear_mse_loss(x, weight, None, target),
        F.mse_loss(F.linear(x, weight), target),
    ):
        (slope,) = torch.autograd.grad(loss, weight, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, weight)
        assert curvature.item() == 15.0


@pytest.mark.parametrize("name", ALL)
def test_no_graph_without_grad(name: str) -> None:
    formula, inputs = losses()[name]
    expected = formula(*inputs)
    assert expected.requires_grad
    with torch.no_grad():
        assert not formula(*inputs).requires_grad
        assert torch.equal(formula(*inputs), expected)
    with torch.inference_mode():
        assert torch.equal(formula(*inputs), expected)
    assert not formula(*(t.detach() for t in inputs)).requires_grad


@pytest.mark.parametrize("name", ALL)
def test_through_autograd_from_the_graph_above(name: str) -> None:
    """Arguments that are themselves computed: the chain rule reaches the leaves."""
    formula, inputs = losses()[name]
    direct = torch.autograd.grad(formula(*inputs), inputs)
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    chained = torch.autograd.grad(formula(*(t * 1.0 for t in leaves)), leaves)
    assert all(map(torch.equal, chained, direct))
