"""Programs as people write them, with their model and data on a device: the numbers of the CPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gdcore

from ..api.optimizers import NAMES

pytestmark = pytest.mark.cuda
CPU = torch.device("cpu")
# Some tens of float64 sums in another order.
CLOSE: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-10}


def data(columns: int | None = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator("cpu").manual_seed(0)
    shapes = ((40,), (40,)) if columns is None else ((40, columns), (40, 1))
    x, y = (torch.randn(s, generator=generator, dtype=torch.float64, device="cpu") for s in shapes)
    return x, y


def line() -> nn.Linear:
    model = nn.Linear(3, 1, dtype=torch.float64, device="cpu")
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.25)
    return model


MODULES: dict[str, tuple[Callable[[], nn.Module], int | None]] = {
    "linear": (lambda: gdcore.nn.LinearRegression(3, 1), 3),
    "polynomial": (lambda: gdcore.nn.PolynomialRegression(3), None),
    "legendre": (lambda: gdcore.nn.LegendreRegression(), None),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("module", MODULES)
def test_a_loop_of_one_s_own(cuda: torch.device, module: str, name: str) -> None:
    make, columns = MODULES[module]
    found = []
    for device in (cuda, CPU):
        torch.manual_seed(0)
        model = make().double().to(device)
        x, y = (t.to(device) for t in data(columns))
        optimizer = getattr(gdcore.optim, name)(model.parameters(), lr=0.01)
        loss_fn = gdcore.nn.MSELoss()
        for _ in range(10):
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
        found.append([loss.detach().cpu(), *(p.detach().cpu() for p in model.parameters())])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, **CLOSE)


def test_gradients_are_scaled(cuda: torch.device) -> None:
    """By what comes from above, a 1 among others, and twice where the graph is kept."""
    for factor in (1.0, -3.0):
        found = []
        for device in (cuda, CPU):
            prediction, target = (t.to(device) for t in data())
            prediction = prediction[:, :1].clone().requires_grad_()
            loss = factor * gdcore.functional.mse_loss(prediction, target)
            for _ in range(2):
                loss.backward(retain_graph=True)
            assert prediction.grad is not None
            found.append(prediction.grad.cpu())
        torch.testing.assert_close(*found, rtol=1e-14, atol=0)


@pytest.mark.parametrize("drop_last", [False, True])
def test_a_loader(cuda: torch.device, drop_last: bool) -> None:
    """Whose rows are on the device."""
    found = []
    for device in (cuda, CPU):
        model = line().to(device)
        rows = TensorDataset(*(t.to(device) for t in data()))
        generator = torch.Generator().manual_seed(3)
        loader = DataLoader(rows, 16, shuffle=True, drop_last=drop_last, generator=generator)
        how = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        history = gdcore.fit(model, nn.MSELoss(), how, loader, epochs=4)
        found.append([history.loss.cpu(), *(p.detach().cpu() for p in model.parameters())])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, **CLOSE)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("way", ["train_step", "fit"])
def test_autocast(cuda: torch.device, way: str, half: torch.dtype) -> None:
    """Plain PyTorch's numbers under it, as far as its products are rounded alike."""
    x, y = (t.float().to(cuda) for t in data())
    mine, other = (line().float().to(cuda) for _ in range(2))
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05) for m in (mine, other)]
    with torch.autocast(cuda.type, half):
        if way == "fit":
            gdcore.fit(mine, nn.MSELoss(), optimizers[0], (x, y), epochs=3)
        else:
            step = gdcore.train_step(mine, nn.MSELoss(), optimizers[0])
            for _ in range(3):
                step(x, y)
        for _ in range(3):
            optimizers[1].zero_grad()
            nn.functional.mse_loss(other(x), y).backward()
            optimizers[1].step()
    unit = torch.finfo(half).eps
    torch.testing.assert_close(mine.weight, other.weight, rtol=4 * unit, atol=unit)


@pytest.mark.parametrize("scales", [False, True])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_fused(cuda: torch.device, name: str, scales: bool) -> None:
    """torch's fused steps, which count on the device; their state goes on in the namesake."""
    mine, other = (line().float().to(cuda) for _ in range(2))
    model_of = {gdcore.optim: mine, torch.optim: other}
    made = []
    for module, model in model_of.items():
        optimizer = getattr(module, name)(model.parameters(), lr=0.05, fused=True)
        scaler = torch.amp.GradScaler(cuda.type) if scales else None
        x, y = (t.float().to(cuda) for t in data())
        for _ in range(4):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            (loss if scaler is None else scaler.scale(loss)).backward()
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
        made.append(optimizer)
    torch.testing.assert_close(mine.weight, other.weight)
    made[1].load_state_dict(made[0].state_dict())
    made[1].step()


@pytest.mark.parametrize("name", NAMES)
def test_default_device(cuda: torch.device, name: str) -> None:
    """Where new tensors are is nothing to what is on the CPU, and what is on the device."""
    found = []
    for device in (cuda, CPU):
        with cuda:
            model = line().to(device)
            x, y = (t.to(device) for t in data())
            optimizer = getattr(gdcore.optim, name)(model.parameters(), lr=0.05)
            step = gdcore.train_step(model, nn.MSELoss(), optimizer, strict=True)
            step(x, y)
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
            gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=3, method="stepwise")
        found.append(model.weight.detach().cpu())
    torch.testing.assert_close(*found, **CLOSE)


def test_a_rate_on_the_device(cuda: torch.device) -> None:
    """Is torch's to read: strictly there is no native step, and without that an eager one."""
    x, y = (t.to(cuda) for t in data())
    mine, other = (line().to(cuda) for _ in range(2))
    rate = torch.tensor(0.05, dtype=torch.float64, device=cuda)
    optimizer = torch.optim.SGD(mine.parameters(), lr=rate)
    with pytest.raises(ValueError, match="without waiting"):
        gdcore.train_step(mine, nn.MSELoss(), optimizer, strict=True)(x, y)
    gdcore.train_step(mine, nn.MSELoss(), optimizer)(x, y)
    gdcore.train_step(other, nn.MSELoss(), torch.optim.SGD(other.parameters(), lr=0.05))(x, y)
    torch.testing.assert_close(mine.weight, other.weight, **CLOSE)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_captured_steps(cuda: torch.device, momentum: float) -> None:
    x, y = (t.to(cuda) for t in data())
    mine, other = (line().to(cuda) for _ in range(2))
    steps = [
        gdcore.train_step(
            model,
            nn.MSELoss(),
            torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum),
            strict=True,
        )
        for model in (mine, other)
    ]
    stream = torch.cuda.Stream(cuda)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        steps[0](x, y)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = steps[0](x, y)
    steps[1](x, y)
    for _ in range(4):
        graph.replay()
        assert loss.item() == steps[1](x, y).item()
    assert torch.equal(mine.weight, other.weight)


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")
@pytest.mark.parametrize("name", ["RMSprop", "Adam", "AdamW"])
def test_counts_are_not_captured(cuda: torch.device, name: str) -> None:
    x, y = (t.to(cuda) for t in data())
    model = line().to(cuda)
    step = gdcore.train_step(
        model, nn.MSELoss(), getattr(torch.optim, name)(model.parameters()), strict=True
    )
    step(x, y)
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="capturable"), torch.cuda.graph(graph):
        step(x, y)
