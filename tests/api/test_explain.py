"""`explain`: what it says of a fit, and the cost model under it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gdcore
from gdcore._loop.cost import Costs, choose

from ..devices import ON_CPU
from .affine_cases import moved
from .refusal import refused

pytestmark = pytest.mark.usefixtures("device")

X, Y = torch.randn(40, 3), torch.randn(40, 1)
W, B = torch.zeros(3, 1, requires_grad=True), torch.zeros(1, requires_grad=True)


@pytest.fixture(autouse=True)
def _there(device: torch.device) -> Iterator[None]:
    with moved(globals(), device):
        yield


def line(x: Tensor) -> Tensor:
    return x @ W + B


def plan(model: Any = line, loss: Any = None, data: Any = (X, Y), **options: Any) -> gdcore.Plan:
    parameters = model.parameters() if isinstance(model, nn.Module) else [W, B]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    options.setdefault("epochs", 100)
    return gdcore.explain(model, loss or nn.MSELoss(), optimizer, data, **options)


def test_a_recognised_function() -> None:
    found = plan()
    assert found.shape == (40, 4)
    assert found.formed == ("x", "1")
    assert found.parameters == ("W", "B")
    assert found.mean is True
    assert found.where is None
    text = str(found).splitlines()
    assert text[0] == "fit: 100 epochs over 40 rows, full batch"
    assert text[1] == "├─ features: 40 × 4 from x, 1"
    assert text[-1].startswith("└─ otherwise: ")
    assert all(mark in ("├", "└") for mark in (row[0] for row in text[1:]))


def test_the_models_with_kernels() -> None:
    assert plan(nn.Linear(3, 1)).formed == ("x", "1")
    assert plan(nn.Linear(3, 1, bias=False)).shape == (40, 3)
    x, y = X[:, 0].contiguous(), Y[:, 0]
    assert plan(gdcore.nn.PolynomialRegression(3), data=(x, y)).shape == (40, 4)
    legendre = plan(gdcore.nn.LegendreRegression(), data=(x, y), epochs=10**6)
    assert legendre.method == "stepwise"
    refused = plan(gdcore.nn.LegendreRegression(), data=(x, y), method="compressed")
    assert refused.method == "eager"
    assert "affine" in refused.why


def test_the_cheapest_is_chosen() -> None:
    x, y = torch.randn(20_000, 20), torch.randn(20_000, 1)
    for epochs, method in ((1, "stepwise"), (10_000, "compressed")):
        found = plan(nn.Linear(20, 1), data=(x, y), epochs=epochs)
        assert found.method == method
        assert found.costs is not None
        assert found.costs.total(method) == min(
            found.costs.total(one) for one in ("stepwise", "compressed")
        )
    assert plan(nn.Linear(20, 1), data=(x, y), epochs=1, method="compressed").method == "compressed"
    assert plan(nn.Linear(20, 1), data=(x, y), epochs=10**4, batch_size=64).method == "stepwise"


def test_why_not() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    assert plan(net).why == "model: ReLU is not affine in its input"

    def curved(x: Tensor) -> Tensor:
        return torch.exp(x @ W + B)  # here

    found = plan(curved)
    assert found.method == "eager"
    assert found.where is not None
    assert found.where.endswith(": return torch.exp(x @ W + B)  # here")
    assert f"seen at: {found.where}" in str(found)
    assert plan(loss=nn.L1Loss()).why.startswith("loss_fn: ")
    assert plan(method="eager").why == "it was asked for"
    centred = plan(lambda x: (x - x.mean(0)) @ W + B, batch_size=8)
    trained = torch.ones(40, requires_grad=True)
    assert plan(weight=trained).why.startswith("weight: expected one that does not require grad")
    assert "not known to depend on one row of x alone" in centred.why
    with pytest.raises(ValueError, match=r"^method: expected the full batch"):
        plan(method="compressed", batch_size=8)
    with pytest.raises(ValueError, match=r"^y: expected the prediction's shape \(40, 1\)"):
        plan(data=(X, torch.randn(40, 2)))
    optimizer = torch.optim.LBFGS([W, B])
    found = gdcore.explain(line, nn.MSELoss(), optimizer, (X, Y), epochs=1)
    assert found.why.startswith("optimizer: ")


def test_shuffled_rows() -> None:
    """A model that mixes the rows of its batch gives others where they come in another order."""

    def model(x: Tensor) -> Tensor:
        return (x - x.roll(1, 0)) @ W + B

    state = torch.get_rng_state()
    assert plan(model, batch_size=40).method == "stepwise"
    assert plan(model, batch_size=40, shuffle=True).method == "eager"
    assert plan(batch_size=8, shuffle=True).method == "stepwise"
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match=r"^shuffle: "):
        plan(shuffle=True)


def test_data() -> None:
    dataset = TensorDataset(X, Y)
    assert plan(data=dataset).shape == (40, 4)
    found = plan(data=DataLoader(dataset, batch_size=16))
    assert found.batch_size == 16
    assert "batches of 16" in str(found)
    assert plan(data=DataLoader(dataset, batch_size=64)).batch_size is None
    columns = tuple(X[:, i : i + 1] for i in range(3))
    found = plan(lambda a, b, c: a * W[0] + b * W[1] + c * W[2] + B, data=(columns, Y))
    assert found.formed == ("x1", "x2", "x3", "1")
    weighted = "loss: weighted mean of squared errors"
    assert weighted in str(plan(data=(X, Y, torch.ones(40))))
    assert weighted in str(plan(weight=torch.ones(40)))
    with pytest.raises(TypeError, match="data: expected"):
        plan(data=X)
    with pytest.raises(ValueError, match="method: expected one of"):
        plan(method="fast")


def test_nothing_is_trained() -> None:
    before = W.detach().clone()
    optimizer = torch.optim.SGD([W, B], lr=0.1, momentum=0.9)
    gdcore.explain(line, nn.MSELoss(), optimizer, (X, Y), epochs=5)
    assert torch.equal(W, before)
    assert W.grad is None
    assert not optimizer.state


MEASURED = [
    # (rows, columns, outputs, way, which, seconds on the machine the constants come from)
    (100_000, 64, 1, "compressed", "prepare", 27e-3),
    (100_000, 64, 1, "stepwise", "epoch", 1.2e-3),
    (100_000, 64, 1, "eager", "epoch", 8e-3),
    (3, 2, 1, "stepwise", "epoch", 0.035e-6),
]


@ON_CPU
@pytest.mark.parametrize(("rows", "columns", "outputs", "way", "which", "seconds"), MEASURED)
def test_the_model_follows_the_measurements(
    rows: int, columns: int, outputs: int, way: str, which: str, seconds: float
) -> None:
    cost = getattr(choose(rows, columns, outputs, epochs=1), way)
    assert seconds / 1.3 < getattr(cost, which) < seconds * 1.3


@ON_CPU
def test_the_model_grows_as_it_says() -> None:
    def costs(n: int = 10_000, q: int = 16, k: int = 1, **more: Any) -> Costs:
        return choose(n, q, k, **{"epochs": 100, **more})

    for way in ("stepwise", "compressed", "eager"):
        for larger in ({"n": 20_000}, {"q": 32}, {"k": 2}, {"epochs": 200}):
            assert costs(**larger).total(way) > costs().total(way) * 0.999, (way, larger)
    first, second = costs(n=10_000).compressed, costs(n=1_000_000).compressed
    assert first is not None
    assert second is not None
    assert second.epoch == first.epoch
    assert costs(batch_size=64).compressed is None
    assert costs(batch_size=10_000) == costs()
    assert costs(batch_size=8).stepwise.epoch > costs(batch_size=64).stepwise.epoch
    assert costs(dtype=torch.float64).stepwise.epoch > costs().stepwise.epoch
    assert costs(batch_size=64).total("compressed") == float("inf")


def test_a_network_is_refused_by_its_first_rows(capsys: pytest.CaptureFixture[str]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            print(len(x))  # what it appends to a list is taken back
            return self.linear(x).relu()

    net, x = Net(), torch.zeros(1, 1).expand(2_000_000, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    plan = gdcore.explain(net, nn.MSELoss(), optimizer, (x, x), epochs=1)
    assert plan.method == "eager"
    assert max(map(int, capsys.readouterr().out.split())) < 100


BAD: dict[str, tuple[type[Exception], dict[str, Any]]] = {
    "epochs": (ValueError, {"epochs": -1}),
    "batch_size": (ValueError, {"batch_size": 0}),
    "max_grad_norm": (ValueError, {"max_grad_norm": -1.0}),
    "stop": (TypeError, {"stop": 3}),
    "method": (ValueError, {"method": "best"}),
    "gradient_norm_below": (
        ValueError,
        {"batch_size": 8, "stop": gdcore.stop_when(gradient_norm_below=1.0)},
    ),
    "loss_fn": (TypeError, {"loss": nn.MSELoss}),
    "model": (TypeError, {"model": 3}),
}


@pytest.mark.parametrize("argument", BAD)
def test_it_refuses_what_a_fit_refuses(argument: str) -> None:
    kind, options = BAD[argument]
    with refused(kind, argument):
        plan(**options)


def test_what_a_rule_watches_needs_no_validation() -> None:
    """It has no part in the choice."""
    rule = gdcore.stop_when(no_improvement_for=3, watch="loss")
    assert plan(stop=rule, max_grad_norm=1.0) == plan()
