"""Several devices in one process: calls go where their tensors are, whichever device is current."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

import gdcore

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("two")]
pytest.importorskip("gdcore._cuda", reason="built without the CUDA path")
ops = torch.ops.gdcore


@pytest.fixture
def two() -> Iterator[None]:
    if torch.cuda.device_count() < 2:
        pytest.skip("one device")
    yield
    for device in range(2):
        torch.cuda.synchronize(device)


def test_losses() -> None:
    results = []
    for number in (1, 0):
        x = torch.arange(10.0, device=f"cuda:{number}")
        loss, gradient = ops.mse(x, x + 1, "sum", True)
        assert loss.device == gradient.device == x.device
        assert torch.cuda.current_device() == 0
        results.append(loss.item())
    assert results == [10.0, 10.0]
    with pytest.raises(ValueError, match=r"target: expected a tensor on cuda:1 as input, .*cuda:0"):
        ops.mse(x.to("cuda:1"), x, "sum", True)


def test_no_context_on_the_current_device() -> None:
    """Which a process that computes on the second device alone has no memory to spare for."""
    code = """
import torch
import gdcore
x = torch.arange(10.0, device="cuda:1")
before = torch._C._cuda_hasPrimaryContext(0)
loss = gdcore.functional.mse_loss(x, x + 1)
assert (loss.item(), torch.cuda.current_device()) == (1.0, 0)
assert torch._C._cuda_hasPrimaryContext(0) == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("way", ["parts", "train_step", "fit", "compressed fit"])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_training_on_the_second_device(name: str, way: str) -> None:
    """While the first is the current one, whose numbers come out, in the same state."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(60, width, generator=generator, dtype=torch.float64) for width in (3, 1)]
    found = []
    for number in (0, 1):
        x, y = (t.to(f"cuda:{number}") for t in rows)
        model = torch.nn.Linear(3, 1, dtype=torch.float64, device=x.device)
        torch.nn.init.constant_(model.weight, 0.5)
        torch.nn.init.zeros_(model.bias)
        optimizer = getattr(gdcore.optim, name)(model.parameters(), lr=0.1)
        loss_fn = gdcore.nn.MSELoss()
        if "fit" in way:
            method = "compressed" if "compressed" in way else "stepwise"
            gdcore.fit(model, loss_fn, optimizer, (x, y), epochs=5, method=method, strict=True)
        elif way == "train_step":
            step = gdcore.train_step(model, loss_fn, optimizer, strict=True)
            assert all(step(x, y).device == x.device for _ in range(5))
        else:
            for _ in range(5):
                optimizer.zero_grad()
                loss_fn(model(x), y).backward()
                optimizer.step()
        assert torch.cuda.current_device() == 0
        states = [v for own in optimizer.state.values() for v in own.values()]
        assert all(v.dim() == 0 or v.device == x.device for v in states)
        found.append([t.detach().cpu() for t in (*model.parameters(), *states)])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_one_optimizer_of_two_devices() -> None:
    parameters = [torch.nn.Parameter(torch.ones(7, device=f"cuda:{i % 2}")) for i in range(6)]
    optimizer = gdcore.optim.SGD(parameters, lr=0.5, momentum=0.9)
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert torch.cuda.current_device() == 0
    assert all(p.tolist() == [0.5] * 7 for p in parameters)
