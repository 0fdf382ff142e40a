"""Whether a row of the prediction depends on one row of x alone, for every x that may come."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gdcore
from gdcore.affine import AffineForm, affine_form

from ..devices import NOT_EMULATED
from .affine_cases import moved, tensor

pytestmark = pytest.mark.usefixtures("device")

COUNT = 4
W = tensor(3, 1)


@pytest.fixture(autouse=True)
def _there(device: torch.device) -> Iterator[None]:
    with moved(globals(), device):
        yield


def data() -> Tensor:
    """Rows whose sum is small, as two of them are far away on either side."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator, dtype=torch.float64, device="cpu").to(W.device)
    x[10], x[150] = 1000.0, -1000.0
    return x


def of(model: Callable[[Tensor], Tensor], x: Tensor, counts: tuple[int, ...]) -> AffineForm:
    form = affine_form(model, [W], x, counts)
    assert isinstance(form, AffineForm), form
    return form


DEPENDENT: dict[str, Callable[[Tensor], Tensor]] = {
    "Python reads a sum": lambda x: x @ W * (1e-3 if x.sum().item() > 500 else 1.0),
    "Python reads the values": lambda x: x @ W * (1e-3 if max(x[:, 0].tolist()) > 5000 else 1.0),
    "the sum": lambda x: x @ W * torch.where(x.sum() > 500, 1e-3, 1.0),
    "the least": lambda x: x @ W * torch.where(x.min() < -5000, 1e-3, 1.0),
    "a row among them": lambda x: x @ W * torch.where(x[x.shape[0] // 2, 0] > 5000, 1e-3, 1.0),
    "the order": lambda x: x.sort(0).values @ W,
    "the mean": lambda x: (x - x.mean(0)) @ W,
}


@NOT_EMULATED
@pytest.mark.parametrize("name", DEPENDENT)
def test_a_row_that_depends_on_others(name: str) -> None:
    assert not of(DEPENDENT[name], data(), (COUNT,)).rowwise


ALONE: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda x: x @ W,
    "a sine": lambda x: x.sin() @ W,
    "powers": lambda x: (x**3 + x * x) @ W,
    "a limit": lambda x: x.clamp(-1, 1) @ W,
    "its own mean": lambda x: (x - x.mean(1, keepdim=True)) @ W,
    "its own norm": lambda x: F.normalize(x, dim=1) @ W,
    "its own softmax": lambda x: x.softmax(1) @ W,
    "its own order": lambda x: x.sort(1).values @ W,
    "a projection": lambda x: x @ torch.arange(9.0, dtype=torch.float64).reshape(3, 3) @ W,
    "overflow": lambda x: x.exp() @ W,
}


@NOT_EMULATED
@pytest.mark.parametrize("name", ALONE)
def test_a_row_that_stands_alone(name: str) -> None:
    x = data() / 1000 if name == "overflow" else data()
    assert of(ALONE[name], x, (COUNT,)).rowwise


@NOT_EMULATED
def test_rows_of_integers() -> None:
    """Classes as features are rows; places in a table are no features at all."""
    x = torch.arange(40) % 3
    given = of(lambda x: F.one_hot(x, 3).double() @ W, x, (COUNT,))
    assert given.rowwise
    found = of(lambda x: F.one_hot(x).double() @ W, x, (COUNT,))
    assert found.stack == 0, "how many classes there are is read from x"
    table = of(lambda x: W[x], x, (COUNT,))
    assert (table.stack, tuple(table.features.shape), table.shape) == (0, (1, 1), (40, 1))


@pytest.mark.parametrize("name", DEPENDENT)
def test_batches_are_then_trained_eagerly(name: str) -> None:
    """With the numbers of the usual loop; and a full batch natively all the same."""
    x = data()
    y = x[:, :1] / 1000
    ends = []
    for method in ("auto", "eager"):
        with torch.no_grad():
            W.fill_(0.5)
        optimizer = torch.optim.SGD([W], lr=1e-9)
        history = gdcore.fit(
            DEPENDENT[name],
            nn.MSELoss(),
            optimizer,
            (x, y),
            epochs=2,
            batch_size=COUNT,
            method=method,
        )
        assert history.plan.method == "eager"
        ends.append((history.loss, W.detach().clone()))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=0.0)
    plan = gdcore.explain(DEPENDENT[name], nn.MSELoss(), optimizer, (x, y), epochs=2)
    assert plan.method == "stepwise"
