"""gdcore.nn: modules that hold what torch's own hold, and compute what gdcore.reference states."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gdcore

from .rounding import assert_within_rounding

pytestmark = pytest.mark.usefixtures("device")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 1), (5, 9)])
def test_linear_regression_is_one_linear(inputs: int, outputs: int, bias: bool) -> None:
    """The same parameters, the same random start, state dicts that go both ways."""
    torch.manual_seed(7)
    ours = gdcore.nn.LinearRegression(inputs, outputs, bias=bias)
    torch.manual_seed(7)
    theirs = nn.Linear(inputs, outputs, bias=bias)
    x = torch.randn(4, inputs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    assert torch.equal(ours(x), theirs(x))

    for source, target in (
        (nn.Linear(inputs, outputs, bias=bias), ours),
        (gdcore.nn.LinearRegression(inputs, outputs, bias=bias), theirs),
    ):
        assert not torch.equal(source(x), target(x))
        target.load_state_dict(source.state_dict())
        assert torch.equal(source(x), target(x))


def test_linear_regression_defaults_to_a_line() -> None:
    model = gdcore.nn.LinearRegression()
    assert isinstance(model, nn.Linear)
    assert model.weight.shape == (1, 1)
    assert model.bias.shape == (1,)
    assert repr(model) == "LinearRegression(in_features=1, out_features=1, bias=True)"


@pytest.mark.parametrize("degree", [0, 1, 3, 16])
def test_polynomial_regression(degree: int) -> None:
    torch.manual_seed(3)
    model = gdcore.nn.PolynomialRegression(degree)
    torch.manual_seed(3)
    assert torch.equal(model.coefficients, torch.randn(degree + 1))
    assert dict(model.named_parameters()).keys() == {"coefficients"}
    assert model.degree == degree
    assert repr(model) == f"PolynomialRegression(degree={degree})"
    x = torch.linspace(-1, 1, 9)
    expected = torch.stack([c * x**m for m, c in enumerate(model.coefficients)]).sum(0)
    magnitude = torch.stack([(c * x**m).abs() for m, c in enumerate(model.coefficients)]).sum(0)
    # Horner: two roundings a degree; torch's pow at most as many.
    assert_within_rounding(model(x), expected, magnitude, 3 * degree + 2)


def test_legendre_regression() -> None:
    model = gdcore.nn.LegendreRegression()
    start = {name: p.item() for name, p in model.named_parameters()}
    assert start == {"a": 0.0, "b": -1.0, "c": 0.0, "d": torch.tensor(0.3).item()}
    assert all(p.shape == () for p in model.parameters())
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (1.0, 2.0, 0.5, 0.25), strict=True):
            parameter.fill_(value)
    # u = 0.5 + 0.25 x is 1 at x = 2 and 0 at x = -2, where P₃ is 1 and 0.
    assert model(torch.tensor([2.0, -2.0])).tolist() == [3.0, 1.0]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_loss(reduction: str) -> None:
    input, target = torch.randn(2, 6, 3, dtype=torch.float64)
    input.requires_grad_()
    slopes = []
    losses = []
    for loss_fn in (gdcore.nn.MSELoss(reduction), nn.MSELoss(reduction=reduction)):
        losses.append(loss_fn(input, target))
        slopes.append(torch.autograd.grad(losses[-1].sum(), input)[0])
    # All terms are positive: γ of 18 sums, a square, a division.
    assert_within_rounding(losses[0], losses[1], losses[1], 24)
    assert_within_rounding(slopes[0], slopes[1], slopes[1].abs(), 8)
    assert repr(gdcore.nn.MSELoss(reduction)) == f"MSELoss(reduction={reduction!r})"


def test_mse_loss_takes_the_mean_by_default() -> None:
    assert gdcore.nn.MSELoss()(torch.tensor([1.0, 5.0]), torch.tensor([0.0, 2.0])).item() == 5.0


MODELS: dict[str, Any] = {
    "linear": lambda: gdcore.nn.LinearRegression(2, 3),
    "polynomial": lambda: gdcore.nn.PolynomialRegression(4),
    "legendre": gdcore.nn.LegendreRegression,
}


@pytest.mark.parametrize("name", MODELS)
def test_modules_copy_pickle_and_change_dtype(name: str) -> None:
    model = MODELS[name]().double()
    x = torch.randn(5, 2, dtype=torch.float64) if name == "linear" else torch.randn(5).double()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is type(model)
        assert torch.equal(other(x), model(x))
        assert next(other.parameters()) is not next(model.parameters())
    assert model(x).dtype == torch.float64


@pytest.mark.parametrize("name", MODELS)
def test_modules_train_in_plain_torch(name: str) -> None:
    """forward is differentiable: gradients are those of gdcore.reference's formula."""
    model = MODELS[name]().double()
    linear = name == "linear"
    x = torch.randn(7, 2, dtype=torch.float64) if linear else torch.randn(7, dtype=torch.float64)
    y = torch.randn(7, 3, dtype=torch.float64) if linear else torch.randn(7, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(0.2, 1.0)
    formula = getattr(gdcore.reference, f"{name}_mse_loss")
    parameters = list(model.parameters())
    found = torch.autograd.grad(nn.functional.mse_loss(model(x), y), parameters)
    stated = torch.autograd.grad(formula(x, *parameters, y), parameters)
    for actual, expected in zip(found, stated, strict=True):
        assert (actual != 0).all()
        # |x| < 4, so no term exceeds 4⁷; fewer than 64 roundings.
        assert_within_rounding(actual, expected, torch.full_like(expected, 4.0**7), 64)


@pytest.mark.parametrize("degree", [-1, 17, 100])
def test_a_degree_out_of_range(degree: int) -> None:
    with pytest.raises(ValueError, match=rf"^degree: expected 0 to 16, got {degree}$"):
        gdcore.nn.PolynomialRegression(degree)


@pytest.mark.parametrize("degree", [2.5, "2", None, True])
def test_a_degree_that_is_not_an_int(degree: Any) -> None:
    kind = type(degree).__name__
    with pytest.raises(TypeError, match=rf"^degree: expected an int, got {kind}$"):
        gdcore.nn.PolynomialRegression(degree)


@pytest.mark.parametrize("reduction", ["median", "", None, 1])
def test_a_reduction_that_is_not_one(reduction: Any) -> None:
    with pytest.raises(ValueError, match=r"^reduction: expected mean, sum or none, got "):
        gdcore.nn.MSELoss(reduction)


@pytest.mark.parametrize("name", MODELS)
def test_modules_through_files(name: str, tmp_path: Path) -> None:
    """torch.save, read back as weights only, and safetensors: the same bits under the same keys."""
    safetensors = pytest.importorskip("safetensors.torch")
    model, empty = MODELS[name](), MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    state = model.state_dict()
    torch.save(state, tmp_path / "state.pt")
    safetensors.save_file(state, tmp_path / "state.safetensors")
    for read in (
        torch.load(tmp_path / "state.pt", weights_only=True),
        safetensors.load_file(tmp_path / "state.safetensors"),
    ):
        assert read.keys() == state.keys()
        empty.load_state_dict(read)
        assert all(map(torch.equal, empty.parameters(), model.parameters()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_modules_move_between_dtypes(name: str, dtype: torch.dtype) -> None:
    model = MODELS[name]().to(dtype)
    x = torch.randn(5, 2, dtype=dtype) if name == "linear" else torch.randn(5, dtype=dtype)
    prediction = model(x)
    assert prediction.dtype == dtype
    gdcore.functional.mse_loss(prediction, torch.zeros_like(prediction)).backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in model.parameters())
