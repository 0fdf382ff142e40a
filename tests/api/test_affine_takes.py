"""Modules that are affine in their parameters, in the many ways people write them."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from ..devices import NOT_EMULATED
from .affine_cases import moved, taken

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

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


@pytest.fixture(autouse=True)
def _there(device: torch.device) -> Iterator[None]:
    with moved(globals(), device):
        yield


@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str) -> None:
    make, size = MODULES[name]
    model = make()
    form = taken(model, list(model.parameters()), X)
    names = {id(p): name for name, p in model.named_parameters()}
    assert form.names == tuple(names[id(p)] for p in model.parameters())
    assert form.features.shape[0] == size[0]
    assert form.features.shape[1] <= size[1]


def test_powers_before_a_linear_layer() -> None:
    model = Powers()
    form = taken(model, list(model.parameters()), torch.randn(6, dtype=torch.float64))
    assert form.features.shape == (6, 4)
    assert form.shape == (6,)
