"""Losses of tensors of several dtypes: promoted as PyTorch's namesake promotes them."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import hessian, jvp, vmap

import gdcore

from ..devices import NOT_EMULATED
from .loss_cases import mean_squares
from .refusal import refused

functional = gdcore.functional

pytestmark = [
    pytest.mark.usefixtures("device"),
    NOT_EMULATED,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script"),
]

FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
OTHERS = [*FLOATS, torch.int64, torch.int8, torch.uint8, torch.bool]
Loss = Callable[..., Tensor]


def random(dtype: torch.dtype) -> Tensor:
    """Not zero, and above zero where the dtype is a float's."""
    value = torch.rand(4, 3) + 0.5
    return value.to(dtype) if dtype.is_floating_point else (4 * value).to(dtype)


def far(dtype: torch.dtype) -> Tensor:
    """Above them all, so that nothing cancels; but for a bool."""
    return random(dtype) if dtype == torch.bool else 3 * random(dtype)


def close(found: list[Tensor], expected: list[Tensor], dtypes: set[torch.dtype]) -> None:
    """torch rounds each operation of a formula with weights in the dtype of its operands."""
    floats = [torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        # A dozen numbers of one sign are added up: two roundings of each, and those of the sum.
        torch.testing.assert_close(mine, theirs, rtol=16 * max(floats), atol=0.0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("target_dtype", OTHERS, ids=str)
@pytest.mark.parametrize("input_dtype", FLOATS, ids=str)
def test_mse_loss(input_dtype: torch.dtype, target_dtype: torch.dtype, reduction: str) -> None:
    target, values = far(target_dtype), random(input_dtype)
    # torch subtracts no bool, which is what it does where there are weights.
    for weight_dtype in (None, *OTHERS) if target_dtype != torch.bool else (None,):
        weight = None if weight_dtype is None else random(weight_dtype)
        results = []
        for fused in (True, False):
            input = values.clone().requires_grad_()
            if fused:
                loss = functional.mse_loss(input, target, reduction, weight)
            else:
                loss = mean_squares(input, target, reduction, weight)
            results.append([loss, *torch.autograd.grad(loss.sum(), input)])
        dtypes = {t.dtype for t in (input, target, weight) if t is not None}
        close(*results, dtypes)


@pytest.mark.parametrize("target_dtype", OTHERS, ids=str)
def test_the_module(target_dtype: torch.dtype) -> None:
    input, target = random(torch.float32), far(target_dtype)
    results = [[kind()(input, target)] for kind in (gdcore.nn.MSELoss, torch.nn.MSELoss)]
    close(*results, {torch.float32})


def test_a_target_that_requires_grad_has_one_of_its_own_dtype() -> None:
    leaves = random(torch.float32).requires_grad_(), far(torch.float64).requires_grad_()
    results = []
    for loss in (functional.mse_loss, F.mse_loss):
        results.append(list(torch.autograd.grad(loss(*leaves), leaves)))
    close(*results, {torch.float32})


@pytest.mark.parametrize("target_dtype", [torch.float64, torch.int64], ids=str)
def test_transforms(target_dtype: torch.dtype) -> None:
    """torch's own forward mode refuses whole numbers: it gets them promoted."""
    input, target = random(torch.float32), far(target_dtype)
    results: list[list[Tensor]] = []
    for loss in (functional.mse_loss, F.mse_loss):
        if loss is F.mse_loss:
            target = target.to(torch.promote_types(target_dtype, torch.float32))
        value, tangent = jvp(lambda i, own=loss, y=target: own(i, y), (input,), (input,))
        second = hessian(lambda i, own=loss, y=target: own(i, y))(input)
        results.append([value, tangent, vmap(loss)(input, target), second])
    close(*results, {torch.float32})


@pytest.mark.parametrize("target_dtype", [torch.float64, torch.int64], ids=str)
def test_in_one_graph(target_dtype: torch.dtype) -> None:
    input, target = random(torch.float32).requires_grad_(), far(target_dtype)
    results = []
    for loss in (functional.mse_loss, F.mse_loss):
        torch.compiler.reset()
        value = torch.compile(loss, fullgraph=True, backend="aot_eager")(input, target)
        results.append([value, *torch.autograd.grad(value, input)])
    close(*results, {torch.float32})


MODELS: dict[str, tuple[Loss, Loss, Callable[[], tuple[Tensor, ...]], tuple[int, ...]]] = {
    "linear_mse_loss": (
        functional.linear_mse_loss,
        F.linear,
        lambda: (torch.rand(4, 2), torch.rand(3, 2), torch.rand(3)),
        (4, 3),
    ),
    "polynomial_mse_loss": (
        functional.polynomial_mse_loss,
        gdcore.reference.polynomial,
        lambda: (torch.rand(4), torch.rand(3)),
        (4,),
    ),
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("other_dtype", OTHERS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, other_dtype: torch.dtype, reduction: str) -> None:
    """As the composition has it, where what makes the prediction shares a dtype; the prediction is
    computed in the promoted one, too."""
    fused, model, make, shape = MODELS[name]
    values, target = make(), (random(torch.float32).expand(4, 3) * 8).to(other_dtype)
    target = target if len(shape) == 2 else target[:, 0]
    # torch subtracts no bool, which is what it does where there are weights.
    weights = (None, torch.ones_like(target)) if other_dtype != torch.bool else (None,)
    for weight in weights:
        results = []
        for loss in (True, False):
            x, *parameters = values
            leaves = [p.clone().requires_grad_() for p in parameters]
            if loss:
                value = fused(x, *leaves, target, reduction, weight)
            else:
                value = mean_squares(model(x, *leaves), target, reduction, weight)
            results.append([value, *torch.autograd.grad(value.sum(), leaves)])
        for mine, theirs in zip(*results, strict=True):
            assert mine.dtype == theirs.dtype
            # The target lies far above the predictions, with their few roundings.
            torch.testing.assert_close(mine, theirs, rtol=64 * 2.0**-23, atol=64 * 2.0**-23)


def test_what_makes_a_prediction_shares_a_dtype() -> None:
    x, weight, bias = torch.ones(4, 2), torch.ones(3, 2), torch.ones(3)
    with refused(TypeError, "weight", "torch.float32 as x", "torch.float64"):
        functional.linear_mse_loss(x, weight.double(), bias, torch.ones(4, 3))
    with refused(TypeError, "bias", "torch.float32 as x", "torch.float64"):
        functional.linear_mse_loss(x, weight, bias.double(), torch.ones(4, 3).double())


def test_promotion_leaves_what_is_refused() -> None:
    row = torch.ones(4)
    with refused(ValueError, "target", "(4,) as input", "(4, 1)", "use target.squeeze(-1)"):
        functional.mse_loss(row, row[:, None].double())
    with refused(TypeError, "target", "torch.float32 as input", "torch.complex64"):
        functional.mse_loss(row, row.cfloat())
    with refused(TypeError, "input", "torch.float32 or torch.float64", "torch.int64"):
        functional.mse_loss(row.long(), row.long())
