"""`fit`, `train_step` and `compress` on a device: the CPU's numbers, and the way that they say."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdcore

from ..native.problems import OPTIMIZERS, optimizer
from .conftest import no_waiting
from .test_emulated_fit import WAYS, Features, X, Y

pytestmark = pytest.mark.cuda
pytest.importorskip("gdcore._native.cuda_loop", reason="built without the CUDA path")

# Sums over some tens of rows in another order, and some tens of updates.
CLOSE: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-10}


def moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.double().to(device)
    return tuple(moved(each, device) for each in value) if isinstance(value, tuple) else value


def fitted(
    model: nn.Module, data: Any, device: Any, way: dict[str, Any], name: str
) -> gdcore.History:
    model.double().to(device)
    options = {key: moved(value, device) for key, value in way.items()}
    how = optimizer(name, model.parameters())
    loss_fn = nn.MSELoss()
    return gdcore.fit(model, loss_fn, how, moved(data, device), **{"epochs": 12, **options})


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, Tensor]]] = {
    "linear": (lambda: nn.Linear(3, 1), (X, Y)),
    "outputs": (lambda: nn.Linear(3, 4, bias=False), (X, Y.expand(-1, 4))),
    "flat": (lambda: nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), (X, Y[:, 0])),
    "polynomial": (lambda: gdcore.nn.PolynomialRegression(3), (X[:, 0], Y[:, 0])),
    "legendre": (lambda: gdcore.nn.LegendreRegression(), (X[:, 0], Y[:, 0])),
    "features": (Features, (X, Y)),
}


def twins(model: str) -> tuple[nn.Module, nn.Module]:
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        made.append(MODELS[model][0]())
    return made[0], made[1]


def same(mine: nn.Module, other: nn.Module) -> None:
    for p, q in zip(mine.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.detach().cpu(), q.detach(), **CLOSE)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", ["stepwise", "compressed", "auto"])
def test_methods(cuda: torch.device, model: str, method: str, name: str) -> None:
    here, there = twins(model)
    data = MODELS[model][1]
    mine = fitted(here, data, cuda, {"method": method, "record_every": 4}, name)
    theirs = fitted(there, data, "cpu", {"method": "stepwise", "record_every": 4}, name)
    if method != "auto":
        assert mine.plan.method == ("eager" if (model, method) == LEGENDRE else method)
    assert mine.plan.device == str(cuda) or mine.plan.method == "eager"
    assert not mine.loss.is_cuda
    torch.testing.assert_close(mine.loss, theirs.loss, **CLOSE)
    for key, values in theirs.parameters.items():
        torch.testing.assert_close(mine.parameters[key].cpu(), values, **CLOSE)
    same(here, there)


LEGENDRE = ("legendre", "compressed")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", ["linear", "legendre", "features"])
def test_around_the_loop(cuda: torch.device, way: str, model: str) -> None:
    here, there = twins(model)
    data = MODELS[model][1]
    options = {key: value for key, value in WAYS[way].items() if key != "validation"}
    options.pop("metrics", None)
    mine = fitted(here, data, cuda, options, "SGD with all options")
    theirs = fitted(there, data, "cpu", options, "SGD with all options")
    assert mine.stopped == theirs.stopped
    torch.testing.assert_close(mine.loss, theirs.loss, **CLOSE)
    same(here, there)


def test_validation(cuda: torch.device) -> None:
    here, there = twins("linear")
    way = {"validation": (X[:9], Y[:9]), "metrics": ("r2", "mae")}
    histories = [
        fitted(here, (X, Y), cuda, way, "SGD"),
        fitted(there, (X, Y), "cpu", way, "SGD"),
    ]
    for key, values in histories[1].validation.items():
        torch.testing.assert_close(histories[0].validation[key], values, **CLOSE)


FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "x @ w + b": lambda x, w, b: x @ w + b,
    "features": lambda x, w, b: torch.sin(x) @ w + b * x[:, :1] ** 2,
    "tied": lambda x, w, b: x @ w + (2 * x) @ w + b,
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("method", ["compressed", "stepwise"])
@pytest.mark.parametrize("copies", [1, 20_000])
def test_any_affine_model(cuda: torch.device, function: str, method: str, copies: int) -> None:
    """Few rows, wherever they come from: factorised on the CPU, or so many that the device does."""
    x, y = X.double().repeat(copies, 1), Y.double().repeat(copies, 1)
    found = []
    for device in (cuda, torch.device("cpu")):
        w = torch.zeros(3, 1, dtype=torch.float64, device=device, requires_grad=True)
        b = torch.zeros(1, dtype=torch.float64, device=device, requires_grad=True)
        how = torch.optim.Adam([w, b], lr=0.05)
        call = FUNCTIONS[function]
        history = gdcore.fit(
            lambda x, call=call, w=w, b=b: call(x, w, b),
            lambda h, y: torch.mean((h - y) ** 2),
            how,
            (x.to(device), y.to(device)),
            epochs=30,
            method=method,
        )
        assert history.plan.method == method, history.plan
        found.append((history.loss, w.detach().cpu(), b.detach().cpu()))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_dtypes(cuda: torch.device, dtype: torch.dtype) -> None:
    """Half types step too: their arithmetic is float32, what is stored is rounded once a step."""
    torch.manual_seed(1)
    x = torch.randn(3000, 3, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)
    model = nn.Linear(3, 1).to(cuda, dtype)
    how = torch.optim.SGD(model.parameters(), lr=0.25)
    data = (x.to(cuda, dtype), y.to(cuda, dtype))
    history = gdcore.fit(model, nn.MSELoss(), how, data, epochs=40, method="stepwise", strict=True)
    assert history.loss.dtype == dtype
    # Where it ends is where an update no longer moves what is stored: some units in the last place.
    unit = torch.finfo(dtype).eps
    wanted = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(model.weight.detach().cpu().double(), wanted, rtol=0, atol=16 * unit)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps(cuda: torch.device, name: str) -> None:
    here, there = twins("linear")
    here.double().to(cuda)
    there.double()
    steps = [
        gdcore.train_step(model, nn.MSELoss(), optimizer(name, model.parameters()), strict=True)
        for model in (here, there)
    ]
    x, y = moved((X, Y), cuda)
    steps[0](x, y)  # makes the state
    steps[1](X.double(), Y.double())
    with no_waiting():
        losses = [steps[0](x[:n], y[:n]) for n in (40, 7, 1)]
    for n, loss in zip((40, 7, 1), losses, strict=True):
        assert loss.is_cuda
        theirs = steps[1](X[:n].double(), Y[:n].double())
        torch.testing.assert_close(loss.cpu(), theirs, **CLOSE)
    same(here, there)


@pytest.mark.parametrize("options", [{"fused": True}, {"capturable": True}], ids=str)
def test_optimizers_that_live_there(cuda: torch.device, options: dict[str, Any]) -> None:
    """Their counts of steps are on the device: a fit, a step and torch go on with each other's."""
    here, there = twins("linear")
    here.double().to(cuda)
    there.double()
    how = torch.optim.Adam(here.parameters(), lr=0.05, **options)
    other = torch.optim.Adam(there.parameters(), lr=0.05)
    x, y = moved((X, Y), cuda)
    plan = None
    for model, opt, data in ((here, how, (x, y)), (there, other, (X.double(), Y.double()))):
        history = gdcore.fit(model, nn.MSELoss(), opt, data, epochs=3, method="stepwise")
        plan = plan or history.plan
        gdcore.train_step(model, nn.MSELoss(), opt)(*data)
        opt.zero_grad()
        nn.functional.mse_loss(model(data[0]), data[1]).backward()
        opt.step()
    assert plan is not None
    assert plan.method == ("eager" if "capturable" in options else "stepwise")
    assert all(state["step"] == 5 for state in how.state.values())
    same(here, there)


def test_mixed_devices(cuda: torch.device) -> None:
    """What is elsewhere is named, whatever its size; nothing is copied behind anybody's back."""
    model = nn.Linear(3, 1).to(cuda)
    how = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.weight.detach().clone()
    for x, y, name in ((X, Y.to(cuda), "x"), (X.to(cuda), Y, "y"), (X, Y, "x")):
        for run in (
            lambda x=x, y=y: gdcore.fit(model, nn.MSELoss(), how, (x, y), epochs=2),
            lambda x=x, y=y: gdcore.train_step(model, nn.MSELoss(), how)(x, y),
        ):
            with pytest.raises(ValueError, match=rf"{name}: expected .*cuda.* got .*cpu"):
                run()
    data = (X.to(cuda), Y.to(cuda), torch.ones(40))
    with pytest.raises(ValueError, match=r"weight: expected .*cuda.* got one on cpu"):
        gdcore.fit(model, nn.MSELoss(), how, data, epochs=2)
    assert torch.equal(model.weight, before)


def test_compress(cuda: torch.device) -> None:
    x, y = torch.randn(5000, 4, dtype=torch.float64), torch.randn(5000, 2, dtype=torch.float64)
    (a, b), rows = gdcore.compress(x.to(cuda), y.to(cuda))
    assert a.is_cuda
    assert b.is_cuda
    assert rows == 5000
    weight = torch.randn(2, 4, dtype=torch.float64)
    losses = [
        torch.nn.functional.mse_loss(torch.nn.functional.linear(p, weight), q)
        for p, q in ((x, y), (a.cpu(), b.cpu()))
    ]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)


def test_current_stream(cuda: torch.device) -> None:
    """After what was put on the stream before, whichever it is."""
    model = nn.Linear(3, 1).to(cuda)
    twin = nn.Linear(3, 1).to(cuda)
    twin.load_state_dict(model.state_dict())
    x, y = X.to(cuda), Y.to(cuda)
    gdcore.fit(twin, nn.MSELoss(), torch.optim.SGD(twin.parameters(), lr=0.1), (x, y), epochs=5)
    for method in ("stepwise", "compressed"):
        own = nn.Linear(3, 1).to(cuda)
        own.load_state_dict(model.state_dict())
        late = torch.zeros_like(x)
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream(cuda)):
            torch.cuda._sleep(50_000_000)
            late.copy_(x)
            how = torch.optim.SGD(own.parameters(), lr=0.1)
            gdcore.fit(own, nn.MSELoss(), how, (late, y), epochs=5, method=method)
        torch.cuda.synchronize()
        torch.testing.assert_close(own.weight, twin.weight, rtol=1e-5, atol=1e-6)


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Python's answer to Ctrl-C, which a process in the background may ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("rows", [40, 400_000])
@pytest.mark.usefixtures("interrupts")
def test_ctrl_c(cuda: torch.device, rows: int) -> None:
    """Answered between two chunks; what was made is what the history holds."""
    x, y = X.repeat(rows // 40, 1).to(cuda), Y.repeat(rows // 40, 1).to(cuda)

    def run(epochs: int) -> tuple[gdcore.History, nn.Linear]:
        torch.manual_seed(0)
        model = nn.Linear(3, 1).to(cuda)
        how = torch.optim.Adam(model.parameters(), lr=1e-6)
        try:
            history = gdcore.fit(model, nn.MSELoss(), how, (x, y), epochs=epochs, method="stepwise")
        except KeyboardInterrupt as stopped:
            history = stopped.history  # type: ignore[attr-defined]
        assert how.state[model.weight]["step"] == len(history.loss)
        return history, model

    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    history, model = run(10**8)
    timer.join()
    epochs = len(history.loss)
    assert 0 < epochs < 10**8
    assert torch.equal(run(epochs)[1].weight, model.weight)


@pytest.mark.filterwarnings("ignore:optimizer. lr:RuntimeWarning")
def test_divergence(cuda: torch.device) -> None:
    for method in ("stepwise", "compressed"):
        model = nn.Linear(3, 1).to(cuda)
        how = torch.optim.SGD(model.parameters(), lr=1e4)
        data = (X.to(cuda), Y.to(cuda))
        with pytest.raises(gdcore.DivergenceError) as error:
            gdcore.fit(model, nn.MSELoss(), how, data, epochs=200, method=method)
        assert error.value.epoch == len(error.value.history.loss) - 1
        assert model.weight.isfinite().all()
