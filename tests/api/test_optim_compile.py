"""Steps inside ``torch.compile``: torch breaks the graph there, and the native step is made."""

import shutil
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn import Parameter

import gdcore

from ..devices import UPDATES_NOT_EMULATED
from ..kernels.rounding import check
from ..optimizer_bounds import gradients, steps_of
from .optimizers import FULL, NAMES, ours

STEPS = 4
COMPILER = shutil.which("g++") or shutil.which("clang++")

each = pytest.mark.parametrize("name", NAMES)
by_backend = pytest.mark.parametrize(
    "backend",
    [
        "eager",
        pytest.param(
            "inductor", marks=pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
        ),
    ],
)
# torch's own, while it compiles.
pytestmark = [
    pytest.mark.usefixtures("device_of_updates"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@each
@by_backend
def test_a_compiled_step(name: str, backend: str) -> None:
    starts = [torch.randn(5), torch.randn(3, 2)]
    parameters = [Parameter(start.clone()) for start in starts]
    optimizer = ours(name, parameters, **FULL[name])
    compiled = torch.compile(lambda: optimizer.step(), backend=backend)
    grads = [gradients(STEPS, start, seed=i) for i, start in enumerate(starts)]
    bounds = [steps_of(name, *pair, **FULL[name]) for pair in zip(starts, grads, strict=True)]
    for step in range(STEPS):
        for parameter, own in zip(parameters, grads, strict=True):
            parameter.grad = own[step].clone()
        compiled()
        for i, parameter in enumerate(parameters):
            state = {k: v for k, v in optimizer.state[parameter].items() if k != "step"}
            for key, value in {"parameter": parameter, **state}.items():
                check(value, bounds[i][step][key], f"{key} of parameter {i}, step {step}")


@UPDATES_NOT_EMULATED  # whose losses are not
@each
@by_backend
def test_a_compiled_training_step(name: str, backend: str, device_of_updates: torch.device) -> None:
    """The loss, zero_grad, backward and the step in one compiled function, against plain torch."""
    if backend == "inductor" and device_of_updates.type == "cuda":
        pytest.importorskip("triton")
    x, y = torch.randn(2, 16, 3, dtype=torch.float64)

    def train(compiled: bool) -> list[torch.Tensor]:
        torch.manual_seed(1)
        model = nn.Linear(3, 3, dtype=torch.float64)
        library = gdcore.optim if compiled else torch.optim
        optimizer = getattr(library, name)(model.parameters(), **FULL[name])

        def step() -> torch.Tensor:
            if compiled:
                loss = gdcore.functional.linear_mse_loss(x, model.weight, model.bias, y)
            else:
                loss = F.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        run = torch.compile(step, backend=backend) if compiled else step
        return [*(run() for _ in range(STEPS)), *(p.detach() for p in model.parameters())]

    expected = train(False)
    assert len({loss.item() for loss in expected[:STEPS]}) == STEPS
    # A few dozen roundings of 1e-16 a step, of values of about 1, and steps amplify them a little.
    bound = 64 * torch.finfo(torch.float64).eps
    for actual, value in zip(train(True), expected, strict=True):
        torch.testing.assert_close(actual, value, rtol=bound, atol=bound)
