"""What a form says beside its numbers: rows, names, origins, offsets, and that x is not copied."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdcore.affine import AffineForm, NotAffine, affine_form

from ..devices import NOT_EMULATED
from .affine_cases import moved, predicted, taken, tensor

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

X = torch.randn(6, 3, dtype=torch.float64)


def linear(features: int = 3, outputs: int = 2, bias: bool = True) -> nn.Linear:
    return nn.Linear(features, outputs, bias, dtype=torch.float64)


W, B = tensor(3, 2), tensor(2)
W1, W2, W3 = tensor(1), tensor(1), tensor(1)
A0, A1, A2 = tensor(), tensor(), tensor()
LINE = torch.randn(6, 1, dtype=torch.float64)
FLAT = torch.randn(6, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _there(device: torch.device) -> Iterator[None]:
    with moved(globals(), device):
        yield


def test_features_are_x_itself() -> None:
    form = taken(lambda x: x @ W, [W], X)
    assert form.features is X
    layer = linear(bias=False)
    assert taken(layer, [layer.weight], X).features is X
    assert taken(nn.Sequential(layer, nn.Flatten(0)), [layer.weight], X).features is X
    both = [layer, linear(bias=False)]
    held = [one.weight for one in both]
    assert taken(lambda x: torch.cat([one(x) for one in both], 1), held, X).features is X


def test_a_big_layer_forms_nothing_of_its_size_squared() -> None:
    layer = nn.Linear(300, 200)
    form = affine_form(layer, list(layer.parameters()), torch.randn(400, 300))
    assert isinstance(form, AffineForm)
    assert form.features.shape == (400, 301)
    assert form.index.shape == (200, 301)


def test_partly_frozen() -> None:
    """A frozen parameter, and one that the optimizer does not hold, are constants."""
    model = nn.Sequential(linear(3, 4), nn.Sigmoid(), linear(4, 2))
    model[0].requires_grad_(False)
    form = taken(model, list(model.parameters()), X)
    assert form.names == ("2.weight", "2.bias")
    model[0].requires_grad_(True)
    form = taken(model, list(model[2].parameters()), X)
    assert form.names == ("2.weight", "2.bias")
    product = taken(lambda x: (x @ W) * B, [W], X)
    assert product.names == ("W",)
    assert product.features.shape == (6, 6)


def test_frozen_part_under_no_grad() -> None:
    hidden, out = linear(3, 4), linear(4, 2)

    def model(x: Tensor) -> Tensor:
        with torch.no_grad():
            h = hidden(x).relu()
        return out(h)

    form = taken(model, list(out.parameters()), X)
    assert form.names == ("out.weight", "out.bias")


def test_parts_that_no_gradient_reaches_are_constant() -> None:
    """As in PyTorch, which leaves their parameters as they are, whoever holds them."""
    hidden, out = linear(3, 4), linear(4, 2)

    def under_no_grad(x: Tensor) -> Tensor:
        with torch.no_grad():
            h = hidden(x).relu()
        return out(h)

    held = [*hidden.parameters(), *out.parameters()]
    for model in (under_no_grad, lambda x: out(hidden(x).exp().detach())):
        form = taken(model, held, X)
        assert form.names == ("out.weight", "out.bias")
    form = taken(lambda x: x @ W + B.detach(), [W, B], X)
    assert form.names == ("W",)
    assert form.offset is not None


def test_offset() -> None:
    form = taken(lambda x: x @ W + x[:, :2] ** 2 + 1, [W], X)
    assert form.offset is not None
    torch.testing.assert_close(form.offset, X[:, :2] ** 2 + 1)
    assert form.features is X
    assert taken(lambda x: x @ W, [W], X).offset is None


def test_parameters_that_the_prediction_does_not_use() -> None:
    """PyTorch leaves them alone, weight decay and all; so they are not trained."""
    form = taken(lambda x: x * W1, [W2, W1, W3], LINE)
    assert form.names == ("W1",)
    assert form.index.tolist() == [[0]]
    part = taken(lambda x: x * W[0, 0], [W], LINE)
    assert part.parameters == (W,)
    assert part.index.tolist() == [[0]]


def test_rowwise() -> None:
    rows: list[tuple[Callable[[Tensor], Tensor], bool]] = [
        (lambda x: x @ W + B, True),
        (lambda x: (x - x.mean(0)) @ W, False),
        (lambda x: x / x.std() @ W, False),
        (lambda x: x.flip(0) @ W, False),
        (lambda x: X @ W, False),
        (lambda x: (x @ W).mean(0), False),
        (lambda x: (x @ W).cumsum(0), False),
        (lambda x: (x @ W).view(6, 2), False),
        (lambda x: (x @ W).flatten(), True),
        (lambda x: x @ W * len(x), False),
        (lambda x: x[:3] @ W, False),
        (lambda x: (x @ W).T, False),
    ]
    for model, expected in rows:
        assert taken(model, [W], X).rowwise is expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_that_are_sums_whose_terms_cancel(dtype: torch.dtype) -> None:
    """Their rounding errors are those of the terms, and the bounds know it."""
    x = torch.randn(6, 3, dtype=dtype)
    x -= x.mean(0)
    w = torch.randn(3, 2, dtype=dtype, requires_grad=True)
    b = torch.randn(2, dtype=dtype, requires_grad=True)
    models: list[Callable[[Tensor], Tensor]] = [
        lambda x: (x @ w).mean(0),
        lambda x: (x @ w + b).sum(),
        lambda x: (x @ w - 1e-3 * (x @ w)).sum(0),
        lambda x: torch.cat([x @ w, 3 * (x @ w) + 1]).sum(0),
        lambda x: (x.exp() - x.exp().mean(0)).T @ (x @ w) - b,
    ]
    for model in models:
        assert isinstance(affine_form(model, [w, b], x), AffineForm)
    assert isinstance(affine_form(lambda x: (x @ w).mean(0) + w.detach()[0], [w, b], x), NotAffine)


def test_names() -> None:
    weights = [tensor(3), tensor(1)]
    assert taken(lambda x: x @ weights[0] + weights[1], weights, X).names == (
        "weights.0",
        "weights.1",
    )

    class Holder:
        def __init__(self) -> None:
            self.slope = tensor(3)

        def __call__(self, x: Tensor) -> Tensor:
            return x @ self.slope

        def twice(self, x: Tensor) -> Tensor:
            return 2 * (x @ self.slope)

    holder = Holder()
    assert taken(holder, [holder.slope], X).names == ("slope",)
    assert taken(holder.twice, [holder.slope], X).names == ("slope",)
    net = linear()
    assert taken(lambda x: net(x), list(net.parameters()), X).names == ("net.weight", "net.bias")
    assert taken(functools.partial(F.linear, weight=net.weight), [net.weight], X).names == (
        "weight",
    )

    def default(x: Tensor, slope: Tensor = weights[0]) -> Tensor:
        return x @ slope

    assert taken(default, weights[:1], X).names == ("slope",)
    hidden = {"a": (tensor(3),)}
    calls = iter([lambda: hidden["a"][0]])
    get = next(calls)
    assert taken(lambda x: x @ get(), [hidden["a"][0]], X).names == ("get.hidden.a.0",)


def test_names_are_unique() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W = nn.Parameter(tensor(3, 2).detach())

        def forward(self, x: Tensor) -> Tensor:
            prediction: Tensor = x @ self.W + x**2 @ W
            return prediction

    model = Both()
    assert taken(model, [model.W, W], X).names == ("W", "W_1")


def test_origin() -> None:
    assert taken(lambda x: A0 + A1 * x + A2 * x**2, [A0, A1, A2], FLAT).origin == (
        "1",
        "x",
        "x ** 2",
    )
    assert taken(lambda x: A1 * x.sin(), [A1], FLAT).origin == ("sin(x)",)


def test_two_threads() -> None:
    """Each watches its own forward."""

    def run(_: int) -> int:
        layer = linear().to(X.device)  # the default device is the other thread's
        forms = [affine_form(layer, list(layer.parameters()), X) for _ in range(20)]
        return sum(isinstance(form, AffineForm) and form.features.shape == (6, 4) for form in forms)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(2))) == [20, 20]


def test_float32() -> None:
    layer = nn.Linear(3, 2)
    form = affine_form(layer, list(layer.parameters()), X.float())
    assert isinstance(form, AffineForm)
    assert form.features.dtype == torch.float32
    torch.testing.assert_close(predicted(form), layer(X.float()).detach())


def test_affine_parametrisation() -> None:
    """A symmetric weight is affine in its upper triangle."""

    class Symmetric(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.triu() + x.triu(1).transpose(-1, -2)

    layer = linear(3, 3)
    nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
    form = taken(layer, list(layer.parameters()), X)
    assert form.features.shape == (6, 4)
    assert form.index.max() == 11
    assert 6 not in form.index  # below the diagonal, after the three of the bias


def test_convolution() -> None:
    layer = nn.Conv1d(2, 3, 2, dtype=torch.float64)
    form = taken(layer, list(layer.parameters()), torch.randn(4, 2, 5, dtype=torch.float64))
    assert form.index.shape == (1, 15)


def test_the_models_own_error_goes_to_the_user() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        affine_form(lambda x: x @ W, [W], X.T)
