"""gdcore.functional under torch.func, forward mode and batched gradients: nothing is detached.

In float64, against PyTorch's own composition of each loss: problems of ten residuals of order one,
so that the results, below 1e3, are equal to 1e-10 whatever the order of their sums.
"""

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import gdcore

from ..devices import NOT_EMULATED
from .loss_cases import Case, cases, selections

ALL = selections()

# torch's own, when forward mode is first used.
pytestmark = [
    pytest.mark.usefixtures("device"),
    NOT_EMULATED,
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
]


def close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def every_argument(case: Case) -> tuple[int, ...]:
    return tuple(range(len(case.inputs)))


@pytest.mark.parametrize(("name", "reduction", "weighted"), ALL)
def test_gradcheck_forward_mode_and_batches(name: str, reduction: str, weighted: bool) -> None:
    case = cases(reduction, weighted)[name]
    assert gradcheck(
        case.fused,
        case.leaves(),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )
    assert gradgradcheck(
        case.fused,
        case.leaves(),
        check_fwd_over_rev=True,
        check_rev_over_rev=True,
        check_batched_grad=True,
    )


@pytest.mark.parametrize(("name", "reduction", "weighted"), ALL)
def test_jacobians_and_hessians(name: str, reduction: str, weighted: bool) -> None:
    case = cases(reduction, weighted)[name]
    numbers = every_argument(case)
    for transform in (jacrev, jacfwd, hessian):
        found = transform(case.fused, argnums=numbers)(*case.inputs)
        close(found, transform(case.plain, argnums=numbers)(*case.inputs))
    if reduction != "none":
        slopes = grad(case.fused, argnums=numbers)(*case.inputs)
        close(slopes, grad(case.plain, argnums=numbers)(*case.inputs))
        assert all((slope != 0).all() for slope in slopes)


@pytest.mark.parametrize(("name", "reduction", "weighted"), ALL)
def test_products_with_the_jacobian(name: str, reduction: str, weighted: bool) -> None:
    case = cases(reduction, weighted)[name]
    tangents = tuple(torch.randn_like(t) for t in case.inputs)
    close(jvp(case.fused, case.inputs, tangents), jvp(case.plain, case.inputs, tangents))
    value, pull = vjp(case.fused, *case.inputs)
    plain, plain_pull = vjp(case.plain, *case.inputs)
    close(value, plain)
    upstream = torch.randn_like(value)
    close(pull(upstream), plain_pull(upstream))


@pytest.mark.parametrize(("name", "reduction", "weighted"), ALL)
def test_vmap(name: str, reduction: str, weighted: bool) -> None:
    """Over each argument alone and all at once, alone and over a gradient."""
    case = cases(reduction, weighted)[name]
    stacked = tuple(torch.stack([t, 2 * t, t - 1]) for t in case.inputs)
    every = every_argument(case)
    for mapped in (*((place,) for place in every), every):
        dims = tuple(0 if place in mapped else None for place in every)
        arguments = [s if i in mapped else t for i, (s, t) in enumerate(zip(stacked, case.inputs))]  # noqa: B905
        close(
            vmap(case.fused, in_dims=dims)(*arguments), vmap(case.plain, in_dims=dims)(*arguments)
        )
        if reduction != "none":
            found = vmap(grad(case.fused, argnums=every), in_dims=dims)(*arguments)
            close(found, vmap(grad(case.plain, argnums=every), in_dims=dims)(*arguments))


@pytest.mark.parametrize("name", cases())
def test_dual_numbers_before_and_after_the_loss(name: str) -> None:
    """Tangents that come in with an argument, and those that meet only the backward."""
    case = cases()[name]
    tangents = [torch.randn_like(t) for t in case.inputs]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, v) for t, v in zip(case.inputs, tangents, strict=True)]
        (fused, plain) = (forward_ad.unpack_dual(f(*duals)) for f in (case.fused, case.plain))
        assert fused.tangent is not None
        close(fused.tangent, plain.tangent)

    leaves = case.leaves()
    loss = case.fused(*leaves)
    with forward_ad.dual_level():
        upstream = forward_ad.make_dual(torch.ones_like(loss), torch.full_like(loss, 3.0))
        slopes = torch.autograd.grad(loss, leaves, upstream)
        found = [forward_ad.unpack_dual(slope).tangent for slope in slopes]
    leaves = case.leaves()
    close(found, [3 * slope for slope in torch.autograd.grad(case.plain(*leaves), leaves)])


@pytest.mark.parametrize(("name", "reduction", "weighted"), ALL)
def test_a_batch_of_gradients_from_above(name: str, reduction: str, weighted: bool) -> None:
    case = cases(reduction, weighted)[name]
    results = []
    for formula in (case.fused, case.plain):
        leaves = case.leaves()
        loss = formula(*leaves)
        upstream = torch.arange(1.0, 4.0).double().reshape(3, *[1] * loss.dim())
        upstream = upstream.expand(3, *loss.shape)
        results.append(torch.autograd.grad(loss, leaves, upstream, is_grads_batched=True))
    close(*results)


@pytest.mark.parametrize("name", cases())
def test_gradients_of_gradients_where_an_argument_is_computed_from_another(name: str) -> None:
    """Each argument stands for itself: what leads from one to another is counted once."""
    case = cases()[name]
    results = []
    for formula in (case.fused, case.plain):
        (leaf, *_) = leaves = case.leaves()
        arguments = [leaf]
        for other in leaves[1:]:  # each depends on the first, which is passed too
            arguments.append(other * (1 + leaf.sum()))
        slopes = torch.autograd.grad(formula(*arguments), leaves, create_graph=True)
        norm = torch.stack([(s**2).sum() for s in slopes]).sum()
        results.append((*slopes, *torch.autograd.grad(norm, leaves)))
    close(*results)


@pytest.mark.parametrize("name", ["mse", "linear_mse", "polynomial_mse"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_may_require_grad(name: str, reduction: str) -> None:
    """The fused kernel has no gradient for them: the formula has, of every order."""
    y, x, c = torch.randn(3, 4, 1).double().unbind()
    weight = (torch.rand(4, 1).double() + 0.5).requires_grad_()

    def loss(w: Tensor, c: Tensor) -> Tensor:
        if name == "mse":
            return gdcore.functional.mse_loss(c, y, reduction, w)
        if name == "linear_mse":
            return gdcore.functional.linear_mse_loss(x, c[:1], None, y, reduction, w)
        return gdcore.functional.polynomial_mse_loss(x[:, 0], c[:, 0], y[:, 0], reduction, w[:, 0])

    arguments = (weight, c.requires_grad_())
    assert gradcheck(loss, arguments)
    assert gradgradcheck(loss, arguments)


def test_per_sample_gradients_of_a_module() -> None:
    model = gdcore.nn.LinearRegression(3, 2).double()
    x, y = torch.randn(6, 3).double(), torch.randn(6, 2).double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        prediction = functional_call(model, parameters, (x.unsqueeze(0),))
        assert isinstance(prediction, Tensor)
        return gdcore.functional.mse_loss(prediction, y.unsqueeze(0))

    each = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    whole = grad(lambda p: gdcore.functional.mse_loss(functional_call(model, p, (x,)), y))(
        parameters
    )
    for name, slope in whole.items():
        close(each[name].mean(0), slope)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_legendre_p3(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape).double().requires_grad_()
    function = gdcore.functional.legendre_p3
    assert gradcheck(function, (x,), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, (x,), check_fwd_over_rev=True, check_batched_grad=True)
    close(vmap(function)(torch.stack([x, 2 * x])), function(torch.stack([x, 2 * x])))


def test_shapes_are_as_strict_inside_transforms() -> None:
    """(n,) against (n, 1) in the words of the native check, not an n × n broadcast."""
    rows, columns = torch.ones(4), torch.ones(4, 1)
    with pytest.raises(ValueError, match=r"^target: .*\(4,\) as input, got \(4, 1\); use target"):
        grad(gdcore.functional.mse_loss)(rows, columns)
    with pytest.raises(ValueError, match=r"^target: expected shape \(3, 1\)"):
        vmap(lambda x: gdcore.functional.linear_mse_loss(x, torch.ones(1, 2), None, rows))(
            torch.ones(2, 3, 2)
        )
    with pytest.raises(ValueError, match=r"^x: .* does not require grad"):
        grad(lambda x: gdcore.functional.polynomial_mse_loss(x, rows, rows))(rows)
