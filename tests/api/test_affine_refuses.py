"""Models that are not affine in their parameters, or not known to be: each is refused."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gdcore
from gdcore.affine import affine_form

from ..devices import NOT_EMULATED
from .affine_cases import moved, refused, tensor

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

X = torch.randn(6, 3, dtype=torch.float64)
W, B = tensor(3, 2), tensor(2)
BUFFER = torch.zeros(6, 2, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _there(device: torch.device) -> Iterator[None]:
    with moved(globals(), device):
        yield


NOT_AFFINE: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "a product": (lambda x: (x @ W) * B, "a product of two"),
    "a product with itself": (lambda x: x @ (W * W), "a product of two"),
    "a square": (lambda x: x @ W**2, "a power"),
    "exp": (lambda x: x @ W.exp(), "exp is not affine"),
    "ReLU": (lambda x: torch.relu(x @ W), "ReLU is not affine"),
    "abs": (lambda x: (x @ W).abs(), "abs is not affine"),
    "clamp": (lambda x: (x @ W).clamp(min=-5), "clamp"),
    "a maximum": (lambda x: torch.maximum(x @ W, B), "maximum is not affine"),
    "sort": (lambda x: (x @ W).sort(0).values, "sort is not affine"),
    "a norm": (lambda x: x @ (W / W.norm()), "norm is not affine"),
    "division by a parameter": (lambda x: x @ W / B, "a division"),
    "softmax": (lambda x: (x @ W).softmax(1), "softmax is not affine"),
    "two layers": (lambda x: x @ W @ W[:2], "a product of two"),
    "detach": (lambda x: x @ W * 2 + B + B.detach(), "detach()"),
    "detach and cancel": (lambda x: x @ W + B - B.detach(), "detach()"),
    "data": (lambda x: x @ (W - W.data) + B, "detach()"),
    "a where by a parameter": (lambda x: torch.where(W[0] > 0, x @ W, B), ""),
    "rounding": (lambda x: (x @ W).round(), "round is not affine"),
    "sign of a parameter": (lambda x: x @ W * B.sign(), "sign is not affine"),
    "half precision between": (lambda x: (x @ W).half().double(), "dtype float16"),
    "complex between": (lambda x: (x @ W).to(torch.complex128).real, ""),
}


@pytest.mark.parametrize("name", NOT_AFFINE)
def test_not_affine(name: str) -> None:
    model, reason = NOT_AFFINE[name]
    refused(model, [W, B], X, reason, where="test_affine_refuses.py:")


def test_where_names_the_line() -> None:
    def model(x: Tensor) -> Tensor:
        h = x @ W
        return torch.tanh(h)  # this line

    found = refused(model, [W], X, "tanh is not affine in its input")
    assert found.where is not None
    assert found.where.endswith(": return torch.tanh(h)  # this line")

    layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    found = refused(layers, list(layers.parameters()), X, "ReLU is not affine in its input")
    assert found.where is not None


def no_grad_part(x: Tensor) -> Tensor:
    with torch.no_grad():
        h = x @ W
    return h + x @ W


def inference_part(x: Tensor) -> Tensor:
    with torch.inference_mode():
        h = W * 2
    return x @ h.clone() + x @ W


def branch(x: Tensor) -> Tensor:
    return x @ W if W.sum() > 0 else -(x @ W)


def branch_on_relu(x: Tensor) -> Tensor:
    return x @ W if torch.relu(W).max() > 0 else x @ W + 1


def item(x: Tensor) -> Tensor:
    return x @ W * B[0].item()


def loop(x: Tensor) -> Tensor:
    return x @ W * sum(1.0 for value in B if value > -100)


def equality(x: Tensor) -> Tensor:
    return x @ W if torch.equal(W, W + 0) else -x @ W


def nonzero(x: Tensor) -> Tensor:
    return x @ W * len(torch.nonzero(W))


def by_mask(x: Tensor) -> Tensor:
    return x @ W * W[W > -100].shape[0]


def by_index(x: Tensor) -> Tensor:
    return x @ W[:, W.sum(0).argsort()]


def tolist(x: Tensor) -> Tensor:
    return x @ W * W.tolist()[0][0]


def to_numpy(x: Tensor) -> Tensor:
    return x @ W * float(W.detach().cpu().numpy()[0, 0])


def as_array(x: Tensor) -> Tensor:
    return x @ W * float(np.asarray(W.detach().cpu())[0, 0])


def dlpack(x: Tensor) -> Tensor:
    return x @ W * torch.from_dlpack(W.detach())[0, 0]


def string(x: Tensor) -> Tensor:
    return x @ W * len(repr(W))


@pytest.mark.parametrize(
    "model",
    [
        no_grad_part,
        inference_part,
        branch,
        branch_on_relu,
        item,
        loop,
        equality,
        nonzero,
        by_mask,
        by_index,
        tolist,
        to_numpy,
        as_array,
        dlpack,
        string,
    ],
)
def test_values_that_leave(model: Callable[[Tensor], Tensor]) -> None:
    refused(model, [W, B], X, where="test_affine_refuses.py:")


def test_memory_that_was_shared_before(device: torch.device) -> None:
    """Aliases of a parameter made outside the forward, which autograd knows nothing of."""
    alias = W.data
    refused(lambda x: x @ alias + x @ W, [W], X, "past autograd")
    if device.type != "cpu":
        return  # memory that NumPy does not share
    array = W.detach().numpy()
    refused(lambda x: x @ W * float(array[0, 0]), [W], X, "differs")
    refused(lambda x: x @ W + x @ torch.from_numpy(array), [W], X, "differs")
    shared = torch.from_numpy(array)
    refused(lambda x: (shared * W).sum(1), [W], X)
    refused(lambda x: (x * W[:, 0]).sum(1), [W], shared.T, "past autograd")


def test_values_computed_before() -> None:
    """A graph from outside: its value is stale at the next step."""
    before = W * 2
    refused(lambda x: x @ before + B, [W, B], X, "out of sight")


def test_values_computed_in_another_thread() -> None:
    """The modes watch this thread only."""

    def model(x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: x @ W).result() + B

    refused(model, [W, B], X, "out of sight")


class Doubled(torch.autograd.Function):
    """The backward is not the forward's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Same(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 3


def test_custom_functions() -> None:
    refused(lambda x: x @ Doubled.apply(W), [W], X)
    refused(lambda x: x @ Same.apply(W), [W], X)
    refused(lambda x: Same.apply(x @ W), [W], X)


def test_parametrisations_that_are_not_affine() -> None:
    layer = nn.Linear(3, 2).double()
    nn.utils.parametrizations.weight_norm(layer)
    refused(layer, list(layer.parameters()), X, where=None)
    layer = nn.Linear(3, 2).double()
    nn.utils.parametrizations.spectral_norm(layer)
    refused(layer, list(layer.parameters()), X)


def test_layers_that_are_not_affine() -> None:
    for model, x in (
        (gdcore.nn.LegendreRegression(), X[:, 0].float()),
        (nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 1)), X.float()),
        (nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)), X.float()),
    ):
        refused(model, list(model.parameters()), x)


def test_what_is_around(device: torch.device) -> None:
    layer = nn.Linear(3, 2)
    parameters = list(layer.parameters())
    with torch.autocast(device.type):
        refused(layer, parameters, X.float(), "autocast")
    with torch.inference_mode():
        refused(layer, parameters, X.float(), "inference")

    class Sub(Tensor):
        pass

    refused(layer, parameters, X.float().as_subclass(Sub), "subclass Sub")
    refused(lambda x: (x @ W).as_subclass(Sub), [W], X)
    refused(lambda x: [x @ W], [W], X, "list, not a tensor")
    refused(lambda x: x + 1, [W], X, "does not depend")
    refused(lambda x: x @ W, [W.detach()], X, "no trained parameter")
    refused(lambda x: x @ W, [W], X[:0], "no rows")
    refused(lambda x: (x @ W).float(), [W], X, "torch.float32 from parameters of torch.float64")
    refused(layer.half(), list(layer.parameters()), X.half(), "float32")
    assert W.requires_grad
    tied = torch.randn(6, dtype=torch.float64)
    first, second = (tied[:3].requires_grad_(), tied[3:].requires_grad_())
    refused(lambda x: x @ first + second.sum(), [first, second], X, "share memory")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch says so of TorchScript
def test_compiled_modules() -> None:
    layer = nn.Linear(3, 2)
    for model in (torch.jit.trace(layer, X.float()), torch.compile(layer)):
        refused(model, list(model.parameters()), X.float(), "compiled")


def test_not_finite() -> None:
    x = X.clone()
    for value in (float("nan"), float("inf"), 1e200):
        x[2, 1] = value
        refused(lambda x: x @ W, [W], x, "not finite")
    refused(lambda x: x @ W + x[:, :2].log(), [W], X - 100)


def test_swallowed_refusals_count() -> None:
    def model(x: Tensor) -> Tensor:
        try:
            sign = 1 if B.sum() > 0 else -1
        except BaseException:
            sign = 1
        return sign * (x @ W)

    refused(model, [W, B], X, "Python reads")


def test_parameters_come_back_after_an_error() -> None:
    """The model raises at values that are not its own."""
    own = W.detach().clone()

    def model(x: Tensor) -> Tensor:
        if not torch._C._len_torch_dispatch_stack() and not torch.equal(W, own):
            raise ArithmeticError
        return x @ W

    with pytest.raises(ArithmeticError):
        affine_form(model, [W], X)
    assert torch.equal(W, own)
