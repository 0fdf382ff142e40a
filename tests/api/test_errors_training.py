"""Bad input to train_step and fit: each an error that says so, before anything was written."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import gdcore

from ..devices import ON_CPU
from .refusal import nothing_written, refused

pytestmark = pytest.mark.usefixtures("device")

Train = Callable[..., Any]


class Setup:
    """A line with momentum, whose buffers already exist (or not yet), with good data."""

    def __init__(self, *, begun: bool = True, model: nn.Module | None = None) -> None:
        self.model = nn.Linear(3, 2) if model is None else model
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        flat = isinstance(self.model, nn.Sequential)
        one = isinstance(self.model, gdcore.nn.PolynomialRegression)
        self.x = torch.ones(5) if one else torch.ones(5, 3)
        self.y = torch.zeros(10) if flat else torch.zeros(5) if one else torch.zeros(5, 2)
        if begun:
            gdcore.fit(self.model, nn.MSELoss(), self.optimizer, (self.x, self.y), epochs=1)

    def step(self, x: Any, y: Any, **options: Any) -> Any:
        return gdcore.train_step(self.model, nn.MSELoss(), self.optimizer, **options)(x, y)

    def fit(self, x: Any, y: Any, **options: Any) -> Any:
        data = (x, y)
        options = {"epochs": 3, "record_every": 2, **options}
        return gdcore.fit(self.model, nn.MSELoss(), self.optimizer, data, **options)


WAYS: dict[str, Train] = {"train_step": Setup.step, "fit": Setup.fit}
BEGUN = pytest.mark.parametrize("begun", [True, False], ids=["begun", "fresh"])
WAY = pytest.mark.parametrize("way", WAYS)
WHICH = pytest.mark.parametrize("argument", ["x", "y"])


@pytest.fixture
def on_cpu(request: pytest.FixtureRequest) -> bool:
    """Whether it is the CPU's own kernels that are at work."""
    return bool(request.node.callspec.params["device"] == "cpu")


def check(
    way: str, setup: Setup, kind: type[Exception], argument: str, *parts: str, **data: Any
) -> None:
    """Refused with this error, nothing written, and good data still train afterwards."""
    x, y = data.get("x", setup.x), data.get("y", setup.y)
    tensors = [t for t in (x, y) if type(t) is Tensor]
    with (
        nothing_written(*tensors, model=setup.model, optimizer=setup.optimizer),
        refused(kind, argument, *parts),
    ):
        WAYS[way](setup, x, y)


@BEGUN
@WHICH
@WAY
@pytest.mark.parametrize("value", [[[1.0]], np.ones((5, 3), dtype=np.float32), None, 1.0, "x"])
def test_not_a_tensor(way: str, argument: str, begun: bool, value: Any) -> None:
    described = type(value).__name__
    setup = Setup(begun=begun)
    check(way, setup, TypeError, argument, "torch.Tensor", described, **{argument: value})


@BEGUN
@WHICH
@WAY
@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.bool, torch.float16, torch.bfloat16, torch.complex64], ids=str
)
def test_a_dtype_that_is_not_taken(
    way: str, argument: str, begun: bool, dtype: torch.dtype
) -> None:
    setup = Setup(begun=begun)
    spoilt = getattr(setup, argument).to(dtype)
    check(way, setup, TypeError, argument, "torch.float32", str(dtype), **{argument: spoilt})


@BEGUN
@WAY
def test_dtypes_that_differ(way: str, begun: bool) -> None:
    setup = Setup(begun=begun)
    named = ("torch.float32", "torch.float64")
    check(way, setup, TypeError, "y", *named, y=setup.y.double())
    check(way, setup, TypeError, "x", *named, x=setup.x.double(), y=setup.y.double())
    setup.model.get_parameter("bias").data = torch.zeros(2, dtype=torch.float64)
    if not begun:
        check(way, setup, TypeError, "bias", *named)


@WAY
def test_a_momentum_buffer_of_another_dtype_or_shape(way: str, on_cpu: bool) -> None:
    setup = Setup()
    setup.model.double()
    double = {"x": setup.x.double(), "y": setup.y.double()}
    named = ("torch.float64", "torch.float32")
    if on_cpu:
        check(way, setup, TypeError, "momentum_buffer", *named, **double)
    else:
        check(way, setup, ValueError, "optimizer", "momentum_buffer", *named, **double)
    setup = Setup()
    state = setup.optimizer.state[setup.model.get_parameter("weight")]
    state["momentum_buffer"] = torch.zeros(3, 2)
    argument, parts = ("momentum_buffer", ()) if on_cpu else ("optimizer", ("momentum_buffer",))
    check(way, setup, ValueError, argument, *parts, "(2, 3)", "(3, 2)")


@BEGUN
@WHICH
@WAY
def test_another_device(way: str, argument: str, begun: bool, on_cpu: bool) -> None:
    setup = Setup(begun=begun)
    spoilt = getattr(setup, argument).to("meta")
    there = "CPU" if on_cpu else f"on {setup.x.device} as the parameters"
    check(way, setup, ValueError, argument, there, "meta", **{argument: spoilt})


@ON_CPU  # elsewhere it is x that is beside the parameters
@WAY
def test_a_model_on_another_device(way: str) -> None:
    setup = Setup(begun=False)
    setup.model.to("meta")
    setup.optimizer = torch.optim.SGD(setup.model.parameters(), lr=0.1)
    check(way, setup, ValueError, "weight", "CPU", "meta")


@BEGUN
@WAY
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_a_sparse_target(way: str, begun: bool, layout: torch.layout) -> None:
    setup = Setup(begun=begun)
    check(way, setup, ValueError, "y", "dense", str(layout), y=setup.y.to_sparse(layout=layout))


@BEGUN
@WHICH
@WAY
def test_a_fake_tensor(way: str, argument: str, begun: bool) -> None:
    """It has no memory, so it is refused by name, never touched."""
    setup = Setup(begun=begun)
    with FakeTensorMode() as mode:
        spoilt = mode.from_tensor(getattr(setup, argument))
    check(way, setup, TypeError, argument, "plain", "FakeTensor", **{argument: spoilt})


class Own(Tensor):
    """A tensor that may have rules of its own."""


@WAY
def test_a_parameter_with_rules_of_its_own(way: str) -> None:
    setup = Setup(begun=False)
    weight = setup.model.get_parameter("weight").detach()
    setup.model.register_parameter("weight", nn.Parameter(weight.as_subclass(Own)))
    setup.optimizer = torch.optim.SGD(setup.model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"^model: .*Own"):
        WAYS[way](setup, setup.x, setup.y, strict=True)


@WAY
def test_a_fake_model(way: str) -> None:
    with FakeTensorMode():
        model = nn.Linear(3, 2)
    setup = Setup(begun=False)
    setup.model = model
    setup.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with refused(TypeError, "model", "weight", "FakeTensor"):
        WAYS[way](setup, setup.x, setup.y)


def flat() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.Flatten(0, 1))


def polynomial() -> nn.Module:
    return gdcore.nn.PolynomialRegression(2)


LINEAR, FLAT, POLYNOMIAL = lambda: nn.Linear(3, 2), flat, polynomial
SHAPES: list[tuple[Callable[[], nn.Module], str, tuple[int, ...], tuple[str, ...]]] = [
    (LINEAR, "x", (5,), ("(n, d)", "(5,)")),
    (LINEAR, "x", (5, 3, 1), ("(n, d)", "(5, 3, 1)")),
    (LINEAR, "y", (5,), ("(5, 2)", "(5,)")),
    (LINEAR, "y", (5, 1), ("(5, 2)", "(5, 1)")),
    (LINEAR, "y", (10,), ("(5, 2)", "(10,)")),
    (LINEAR, "y", (4, 2), ("(5, 2)", "(4, 2)")),
    (LINEAR, "y", (), ("(5, 2)", "()")),
    (FLAT, "y", (5, 2), ("(10,)", "(5, 2)")),
    (FLAT, "y", (10, 1), ("(10,)", "(10, 1)", "use y.squeeze(-1)")),
    (POLYNOMIAL, "x", (5, 1), ("(n,)", "(5, 1)", "use x.squeeze(-1)")),
    (POLYNOMIAL, "y", (5, 1), ("(5,)", "(5, 1)", "use y.squeeze(-1)")),
    (POLYNOMIAL, "y", (4,), ("(5,)", "(4,)")),
]


@BEGUN
@WAY
@pytest.mark.parametrize(("build", "argument", "shape", "parts"), SHAPES)
def test_a_shape_that_does_not_fit(
    build: Callable[[], nn.Module],
    argument: str,
    shape: tuple[int, ...],
    parts: tuple[str, ...],
    begun: bool,
    way: str,
) -> None:
    setup = Setup(begun=begun, model=build())
    check(way, setup, ValueError, argument, *parts, **{argument: torch.ones(shape)})


@WAY
def test_a_transposed_weight(way: str, on_cpu: bool) -> None:
    setup = Setup(begun=False)
    weight = setup.model.get_parameter("weight")
    transposed = weight.detach().t()
    # Elsewhere a step of what is not contiguous is torch's.
    weight.data = transposed if on_cpu else transposed.contiguous()
    check(way, setup, ValueError, "weight", "(k, 3)", "(5, 3)", "(3, 2)", "use weight.t()")


@WAY
def test_rows_against_columns_are_never_broadcast(way: str) -> None:
    setup = Setup(begun=False, model=nn.Linear(1, 1))
    column, row = torch.ones(4, 1), torch.ones(4)
    check(way, setup, ValueError, "y", "(4, 1)", "(4,)", "use y.unsqueeze(-1)", x=column, y=row)
    check(way, setup, ValueError, "x", "(n, d)", "(4,)", "use x.unsqueeze(-1)", x=row, y=column)
