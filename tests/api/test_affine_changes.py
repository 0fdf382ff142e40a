"""A form is made from what the model is now: what changed since the last time is never missed."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gdcore.affine import AffineForm, NotAffine, affine_form

from ..devices import NOT_EMULATED
from .affine_cases import moved, refused, taken, tensor

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

X = torch.randn(6, 3, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _there(device: torch.device) -> Iterator[None]:
    with moved(globals(), device):
        yield


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2, dtype=torch.float64)
        self.drop = nn.Dropout(0.5)
        self.scale = 1.0
        self.squared = False
        self.register_buffer("mean", torch.zeros(3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(self.drop(x - self.mean)) * self.scale
        return h**2 if self.squared else h


def test_closure() -> None:
    w, c = tensor(3, 2), torch.tensor(1.0, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        return x @ w * c

    first = taken(model, [w], X)
    c = torch.tensor(2.0, dtype=torch.float64)
    second = taken(model, [w], X)
    torch.testing.assert_close(second.features, 2 * first.features)
    c.mul_(2)  # the same tensor, another value
    torch.testing.assert_close(taken(model, [w], X).features, 4 * first.features)
    w = tensor(3, 2)
    assert taken(model, [w], X).parameters[0] is w
    c = w.sum()
    assert isinstance(affine_form(model, [w], X), NotAffine)


def test_attribute_mode_buffer() -> None:
    model = Model().eval()
    parameters = list(model.parameters())
    first = taken(model, parameters, X)
    model.scale = 3.0
    torch.testing.assert_close(taken(model, parameters, X).features, 3 * first.features)
    model.mean.add_(1)
    form = taken(model, parameters, X)
    column = 3.0 * (X - model.mean)[:, 0]
    assert any(torch.allclose(column, feature) for feature in form.features.T)
    model.squared = True
    refused(model, parameters, X, "power")
    model.squared = False
    model.train()
    refused(model, parameters, X, "random numbers")
    model.eval()
    assert isinstance(affine_form(model, parameters, X), AffineForm)


def test_hook_comes_and_goes() -> None:
    model = Model().eval()
    parameters = list(model.parameters())
    taken(model, parameters, X)
    handle = model.linear.register_forward_hook(lambda *_: None)
    refused(model, parameters, X, "hook")
    handle.remove()
    handle = model.linear.weight.register_hook(lambda _: None)
    refused(model, parameters, X, "hook")
    handle.remove()
    taken(model, parameters, X)


def test_requires_grad() -> None:
    model = Model().eval()
    parameters = list(model.parameters())
    assert len(taken(model, parameters, X).parameters) == 2
    model.linear.bias.requires_grad_(False)
    form = taken(model, parameters, X)
    assert form.names == ("linear.weight",)
    assert form.offset is not None


def test_another_parameter_in_the_same_place() -> None:
    model = Model().eval()
    taken(model, list(model.parameters()), X)
    model.linear.weight = nn.Parameter(torch.randn(2, 3, dtype=torch.float64))
    form = taken(model, list(model.parameters()), X)
    assert any(p is model.linear.weight for p in form.parameters)


def test_another_forward(monkeypatch: Any) -> None:
    model = Model().eval()
    parameters = list(model.parameters())
    taken(model, parameters, X)
    monkeypatch.setattr(Model, "forward", lambda self, x: self.linear(x).exp())
    refused(model, parameters, X, "exp is not affine")
