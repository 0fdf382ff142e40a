"""Optimizers' steps on a device: the CPU's bits, plain PyTorch's numbers, captured into graphs."""

import contextlib

import pytest
import torch

import gdcore

from ..api.optimizers import FULL, NAMES, everything, ours, theirs
from .conftest import no_waiting

pytestmark = pytest.mark.cuda
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_updates_are_the_cpu_s(cuda: torch.device, name: str, dtype: torch.dtype) -> None:
    """To the bit, for aligned and misaligned tensors, tiles and their ends."""
    values = [torch.randn(n, dtype=torch.float64).to(dtype) for n in (1, 7, 4096, 5003, 70_001)]
    on_cpu = [torch.nn.Parameter(v.clone()) for v in values]
    on_cuda = [torch.nn.Parameter(v.to(cuda)) for v in values]
    mine, other = (ours(name, p, **FULL[name]) for p in (on_cuda, on_cpu))
    advance_on(mine, on_cuda, range(3))
    advance_on(other, on_cpu, range(3))
    for here, there in zip(everything(mine), everything(other), strict=True):
        assert torch.equal(here.cpu(), there.cpu())


def advance_on(
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    steps: range,
    waits: bool = True,
) -> None:
    for step in steps:
        for i, p in enumerate(parameters):
            generator = torch.Generator().manual_seed(100 * step + i)
            grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.grad = grad.to(p.dtype).to(p.device)
        with contextlib.nullcontext() if waits else no_waiting():
            optimizer.step()


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_torch_s(cuda: torch.device, name: str) -> None:
    values = [torch.randn(40, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)]
    results = []
    for make in (ours, theirs):
        parameters = [torch.nn.Parameter(v.to(cuda)) for v in values]
        optimizer = make(name, parameters, **FULL[name])
        advance_on(optimizer, parameters, range(5))
        results.append([p.detach() for p in parameters])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_parameters_on_both_devices(cuda: torch.device) -> None:
    parameters = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3, device=cuda))]
    optimizer = gdcore.optim.SGD(parameters, lr=0.5)
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert [p.tolist() for p in parameters] == [[0.5] * 3] * 2


@pytest.mark.parametrize("setting", ["capturable", "fused", "tensor rate"])
@pytest.mark.parametrize("name", NAMES)
def test_counts_and_rates_of_the_device(
    cuda: torch.device, name: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Are read there, natively: nothing waits."""
    monkeypatch.setattr("gdcore._optim.torch_step.step", None)
    options = {**FULL[name]}
    if setting == "fused":
        if name == "RMSprop":
            pytest.skip("torch's has no fused=True")
        options["fused"] = True
    elif name != "SGD":
        options["capturable"] = True
    if setting == "tensor rate":
        options["lr"] = torch.tensor(options["lr"], device=cuda)
    values = [torch.randn(n, dtype=torch.float64) for n in (1, 4100, 7)]
    results = []
    for make in (ours, theirs):
        parameters = [torch.nn.Parameter(v.to(cuda)) for v in values]
        optimizer = make(name, parameters, **options)
        advance_on(optimizer, parameters, range(1))
        advance_on(optimizer, parameters, range(1, 4), waits=make is theirs)
        results.append([t.detach() for t in everything(optimizer)])
    for mine, other in zip(*results, strict=True):
        # torch corrects by powers in float32.
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_captured_steps_with_another_rate(cuda: torch.device, name: str) -> None:
    """A graph's steps count on, at the rate that its tensor holds by then."""
    rate = torch.tensor(0.1, device=cuda)
    capturable = {} if name == "SGD" else {"capturable": True}
    p = torch.nn.Parameter(torch.linspace(1, 2, 4100, device=cuda))
    twin = torch.nn.Parameter(p.detach().cpu())
    options = {**FULL[name]}
    captured = ours(name, [p], **{**options, **capturable, "lr": rate})
    plain = ours(name, [twin], **{**options, "lr": torch.tensor(0.1)})
    p.grad, twin.grad = torch.ones_like(p), torch.ones_like(twin)
    captured.step()
    plain.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.step()
    for lr in (0.1, 0.05, 0.2):
        rate.fill_(lr)
        plain.param_groups[0]["lr"].fill_(lr)
        graph.replay()
        plain.step()
    for mine, other in zip(everything(captured), everything(plain), strict=True):
        # Powers in double may round otherwise on a device, and then once to float32.
        torch.testing.assert_close(mine.cpu(), other, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")
def test_a_first_step_with_momentum_is_not_captured(cuda: torch.device) -> None:
    """A graph would make a first step again and again; after one, it has the steps that follow."""
    p = torch.nn.Parameter(torch.ones(5, device=cuda))
    twin = torch.nn.Parameter(p.detach().clone())
    optimizers = [gdcore.optim.SGD([each], lr=0.1, momentum=0.9) for each in (p, twin)]
    p.grad = twin.grad = torch.ones_like(p)
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="momentum_buffer"), torch.cuda.graph(graph):
        optimizers[0].step()
    assert not optimizers[0].state
    for optimizer in optimizers:
        optimizer.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizers[0].step()
    for _ in range(3):
        graph.replay()
        optimizers[1].step()
    assert torch.equal(p, twin)


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")
def test_adam_is_not_captured_with_its_count(cuda: torch.device) -> None:
    p = torch.nn.Parameter(torch.ones(5, device=cuda))
    optimizer = gdcore.optim.Adam([p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="capturable"), torch.cuda.graph(graph):
        optimizer.step()


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_nobody_waits_for_an_overflow(cuda: torch.device, name: str) -> None:
    """Under a GradScaler, which leaves it to ``fused=True``; the first step makes the states."""
    results = []
    for make in (ours, theirs):
        p = torch.nn.Parameter(torch.linspace(1, 2, 4100, device=cuda))
        options = {**FULL[name], "fused": True}
        optimizer = make(name, [p], **options)
        scaler = torch.amp.GradScaler(cuda.type, init_scale=1024.0)
        scaler.scale(torch.ones((), device=cuda))
        for step in range(4):
            p.grad = torch.full_like(p, 1024.0 * (1 + step))
            if step == 2:
                p.grad[7] = torch.inf
            with no_waiting() if step else contextlib.nullcontext():
                scaler.step(optimizer)
            scaler.update(1024.0)
        results.append([t.detach() for t in everything(optimizer)])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other)
