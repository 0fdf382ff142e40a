"""Models that are affine in their parameters, in the many ways people write them."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdcore.affine import AffineForm, affine_form

from .affine_cases import predicted, taken, tensor

X = torch.randn(6, 3, dtype=torch.float64)


def linear(features: int = 3, outputs: int = 2, bias: bool = True) -> nn.Linear:
    return nn.Linear(features, outputs, bias, dtype=torch.float64)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = linear()

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.linear(x)


class Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = linear(), linear(bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) - 0.5 * self.second(x.cos()) + x[:, :2]


class Side(nn.Module):
    def __init__(self, join: Callable[..., Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.join = linear(), linear(), join

    def forward(self, x: Tensor) -> Tensor:
        return self.join([self.first(x), self.second(x)])


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = linear(), linear()
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x**2) + self.first.weight.sum()


class WithBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = linear()
        self.register_buffer("mean", torch.randn(3, dtype=torch.float64))
        self.scale = 3.0

    def forward(self, x: Tensor) -> Tensor:
        return self.linear((x - self.mean) / self.scale) + torch.ones(2, dtype=torch.float64)


class Powers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = linear(3, 1)
        self.p = torch.tensor([1, 2, 3])

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.unsqueeze(-1).pow(self.p)).flatten(0, 1)


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, int]]] = {
    "linear": (linear, (6, 4)),
    "linear without bias": (lambda: linear(bias=False), (6, 3)),
    "sequential": (lambda: nn.Sequential(linear()), (6, 4)),
    "flattened": (lambda: nn.Sequential(linear(), nn.Flatten(0)), (6, 4)),
    "flattened, one output": (lambda: nn.Sequential(linear(3, 1), nn.Flatten(0, 1)), (6, 4)),
    "unflattened": (lambda: nn.Sequential(linear(3, 4), nn.Unflatten(1, (2, 2))), (6, 4)),
    "scaled in a class": (Scaled, (6, 4)),
    "added": (Added, (6, 7)),
    "concatenated": (lambda: Side(lambda s: torch.cat(s, 1)), (6, 4)),
    "concatenated by rows": (lambda: Side(lambda s: torch.cat(s, 0)), (12, 8)),
    "stacked": (lambda: Side(lambda s: torch.stack(s, 1)), (6, 4)),
    "summed list": (lambda: Side(sum), (6, 8)),
    "a shared parameter": (Shared, (6, 11)),
    "a buffer and constants": (WithBuffer, (6, 4)),
    "a bilinear of constants": (lambda: nn.Sequential(nn.Tanh(), linear()), (6, 4)),
    "identity and eval dropout": (
        lambda: nn.Sequential(nn.Identity(), linear(), nn.Dropout()).eval(),
        (6, 4),
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str) -> None:
    make, size = MODULES[name]
    model = make()
    form = taken(model, list(model.parameters()), X)
    names = {id(p): name for name, p in model.named_parameters()}
    assert form.names == tuple(names[id(p)] for p in model.parameters())
    assert form.features.shape[0] == size[0]
    assert form.features.shape[1] <= size[1]


W, V, B = tensor(3, 2), tensor(3), tensor(2)
W1, W2, W3, B1 = tensor(1), tensor(1), tensor(1), tensor(1)
A0, A1, A2, A3 = tensor(), tensor(), tensor(), tensor()
COLUMNS = tuple(torch.randn(6, 1, dtype=torch.float64) for _ in range(3))
LINE = torch.randn(6, 1, dtype=torch.float64)
FLAT = torch.randn(6, dtype=torch.float64)

FUNCTIONS: dict[str, tuple[Callable[..., Tensor], list[Tensor], Any, int]] = {
    "x * W": (lambda x: x * W1, [W1], LINE, 1),
    "x * W + b": (lambda x: x * W1 + B1, [W1, B1], LINE, 2),
    "columns of a tuple": (
        lambda x1, x2, x3: x1 * W1 + x2 * W2 + x3 * W3 + B1,
        [W1, W2, W3, B1],
        COLUMNS,
        4,
    ),
    "columns of one tensor": (
        lambda x: x[:, 0] * W1 + x[:, 1] * W2 + x[:, 2] * W3 + B1,
        [W1, W2, W3, B1],
        X,
        4,
    ),
    "x @ W": (lambda x: x @ W, [W], X, 3),
    "x @ W + b": (lambda x: x @ W + B, [W, B], X, 4),
    "x.matmul(W) + b": (lambda x: x.matmul(W) + B, [W, B], X, 4),
    "a vector": (lambda x: x @ V, [V], X, 3),
    "torch.mv": (lambda x: torch.mv(x, V) + 1.5, [V], X, 3),
    "elementwise and sum": (lambda x: (x * V).sum(1), [V], X, 3),
    "mean over columns": (lambda x: (x * V).mean(-1, keepdim=True), [V], X, 3),
    "F.linear": (lambda x: F.linear(x, W.T, B), [W, B], X, 4),
    "addmm": (lambda x: torch.addmm(B, x, W, beta=2, alpha=0.5), [W, B], X, 4),
    "baddbmm": (lambda x: torch.baddbmm(B, x[None], W[None])[0], [W, B], X, 4),
    "einsum": (lambda x: torch.einsum("nd,dk->nk", x, W) + B, [W, B], X, 4),
    "inner": (lambda x: torch.inner(x, W.T), [W], X, 3),
    "tensordot": (lambda x: torch.tensordot(x, W, 1), [W], X, 3),
    "polynomial": (
        lambda x: A0 + A1 * x + A2 * x**2 + A3 * x**3,
        [A0, A1, A2, A3],
        FLAT,
        4,
    ),
    "sines and products": (
        lambda x: A0 * x[:, 0].sin() + A1 * (x[:, 1] * x[:, 2]) + A2 * x.relu()[:, 0],
        [A0, A1, A2],
        X,
        3,
    ),
    "powers by unsqueeze": (
        lambda x: x.unsqueeze(-1).pow(torch.tensor([1, 2, 3])) @ V + A0,
        [V, A0],
        FLAT,
        4,
    ),
    "stack of parameters": (lambda x: x @ torch.stack([A0, A1, A2]), [A0, A1, A2], X, 3),
    "columns of a parameter": (lambda x: x @ W[:, 0] - x @ W[:, 1], [W], X, 6),
    "used twice": (lambda x: x * W1 + x.square() * W1 + W1, [W1], LINE, 2),
    "the power one": (lambda x: x @ W**1, [W], X, 3),
    "in place": (lambda x: (x @ W).add_(B).mul_(2), [W, B], X, 4),
    "in place on a view": (lambda x: (x @ W).view(2, 3, 2).add_(B), [W, B], X, 4),
    "the other way round": (lambda x: 1 - (x @ W - B) / 4, [W, B], X, 4),
    "masked": (lambda x: torch.where(x[:, :2] > 0, x @ W, B), [W, B], X, 16),
    "split and joined": (lambda x: torch.cat(list((x @ W).split(1, 1))[::-1], 1), [W], X, 3),
    "movements": (lambda x: (x @ W).flip(1).roll(1, 1).T.T, [W], X, 6),
    "an embedding": (lambda x: F.embedding(torch.arange(6) % 3, W), [W], X, 6),
    "cumulated": (lambda x: (x * V).cumsum(1), [V], X, 3),
    "made in the shape of it": (
        lambda x: x @ W + torch.ones_like(x @ W) * W.new_full((2,), 3),
        [W],
        X,
        3,
    ),
    "rows by a mask": (lambda x: (x @ W)[x[:, 0] > -9], [W], X, 6),
    "in steps": (lambda x: torch.diff(x @ W, dim=1), [W], X, 6),
    "lerp": (lambda x: torch.lerp(x @ W, B, 0.25), [W, B], X, 4),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    model, parameters, x, columns = FUNCTIONS[name]
    form = taken(model, parameters, x)
    assert form.features.shape[1] <= columns
    assert set(form.names) <= {"W", "V", "B", "W1", "W2", "W3", "B1", "A0", "A1", "A2", "A3"}


def test_powers_before_a_linear_layer() -> None:
    model = Powers()
    form = taken(model, list(model.parameters()), FLAT)
    assert form.features.shape == (6, 4)
    assert form.shape == (6,)


def test_features_are_x_itself() -> None:
    form = taken(lambda x: x @ W, [W], X)
    assert form.features is X
    layer = linear(bias=False)
    assert taken(layer, [layer.weight], X).features is X
    assert taken(nn.Sequential(layer, nn.Flatten(0)), [layer.weight], X).features is X
    stacked = Side(lambda s: torch.cat(s, 1))
    stacked.first, stacked.second = linear(bias=False), linear(bias=False)
    assert taken(stacked, list(stacked.parameters()), X).features is X


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


def test_origin() -> None:
    assert taken(lambda x: A0 + A1 * x + A2 * x**2, [A0, A1, A2], FLAT).origin == (
        "1",
        "x",
        "x ** 2",
    )
    assert taken(lambda x: A1 * x.sin(), [A1], FLAT).origin == ("sin(x)",)


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
