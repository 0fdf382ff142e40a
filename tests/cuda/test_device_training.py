"""Updates and loops on a device: the CPU's bits, plain PyTorch's numbers, and what ends a loop."""

import copy
import threading
import time
from typing import Any

import pytest
import torch
from torch import Tensor

import gdcore
from gdcore._native.optimizers import rule_of
from gdcore._native.problem import Problem, checked

from ..api.optimizers import FULL, NAMES, everything, ours, theirs
from .conftest import no_waiting
from .emulator import Emulator
from .test_emulated_training import CASES, SMALL, Loop, problem
from .test_emulated_training import name as case_name

pytestmark = pytest.mark.cuda
_cuda_loop = pytest.importorskip("gdcore._native.cuda_loop", reason="built without the CUDA path")
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
    optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], steps: range
) -> None:
    for step in steps:
        for i, p in enumerate(parameters):
            generator = torch.Generator().manual_seed(100 * step + i)
            grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.grad = grad.to(p.dtype).to(p.device)
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
def test_torch_updates_what_is_on_the_device(cuda: torch.device, setting: str) -> None:
    """Counts and rates that live on the device are torch's to read there: nothing waits."""
    results = []
    for optim in (gdcore.optim, torch.optim):
        p = torch.nn.Parameter(torch.ones(5, device=cuda))
        options: dict[str, Any] = {"capturable": True}
        if setting == "fused":
            options = {"fused": True}
        if setting == "tensor rate":
            options = {"lr": torch.tensor(0.1, device=cuda), "capturable": True}
        optimizer = optim.Adam([p], **options)
        p.grad = torch.linspace(1, 2, 5, device=cuda)
        with no_waiting():
            optimizer.step()
        results.append(p.detach())
    torch.testing.assert_close(*results)


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")
def test_a_first_step_with_momentum_is_not_captured(cuda: torch.device) -> None:
    """A graph would make a first step again and again; after one, it has the steps that follow."""
    p = torch.nn.Parameter(torch.ones(5, device=cuda))
    twin = bare(p)
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


def bare(p: Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(p.clone())


def loop_of(
    model: str,
    parameters: list[Any],
    data: Any,
    optimizer: torch.optim.Optimizer,
    *rest: Any,
    **kw: Any,
) -> Any:
    names = tuple(f"parameters[{i}]" for i in range(len(parameters)))
    problem = checked(Problem(model, names, tuple(parameters), *data, True))
    held = (rule_of(optimizer), optimizer.param_groups, optimizer.state)
    return _cuda_loop.CudaLoop(problem, *held, *rest, **kw)


def run(
    device: torch.device,
    model: str,
    data: Any,
    parameters: list[Tensor],
    epochs: int,
    name: str,
    **options: Any,
) -> tuple[Any, list[torch.nn.Parameter], torch.optim.Optimizer]:
    own = [bare(p.to(device)) for p in parameters]
    optimizer = getattr(torch.optim, name)(own, **options)
    there = [None if t is None else t.to(device) for t in data]
    loop = loop_of(model, own, there, optimizer, epochs, record_every=1)
    loop.put(epochs)
    return loop, own, optimizer


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("model", "rows", "d", "k"), [*SMALL, ("linear", 50_000, 7, 1)])
def test_loops_are_torch_s(
    cuda: torch.device, model: str, rows: int, d: int, k: int, name: str
) -> None:
    data, parameters = problem(model, rows, d, k, torch.float64)
    loop, own, optimizer = run(cuda, model, data, parameters, 12, name, **FULL[name])
    assert loop.wait() is None

    twins = [bare(p) for p in parameters]
    plain = getattr(torch.optim, name)(twins, **FULL[name])
    for epoch in range(12):
        plain.zero_grad()
        loss = ((predicted(model, data[0], twins) - data[1]) ** 2).mean()
        loss.backward()
        plain.step()
        torch.testing.assert_close(loop.losses[epoch].cpu(), loss.detach(), rtol=1e-9, atol=1e-12)
    for mine, other in zip(own, twins, strict=True):
        torch.testing.assert_close(mine.cpu(), other, rtol=1e-8, atol=1e-9)
    for p, twin in zip(own, twins, strict=True):
        assert optimizer.state.get(p, {}).keys() == plain.state.get(twin, {}).keys()
        if "step" in optimizer.state.get(p, {}):
            assert optimizer.state[p]["step"] == 12


def predicted(model: str, x: Tensor, theta: list[torch.nn.Parameter]) -> Tensor:
    if model == "linear":
        return torch.nn.functional.linear(x, *theta)
    if model == "polynomial":
        return gdcore.reference.polynomial(x, theta[0])
    return gdcore.reference.legendre(x, *theta)


@pytest.mark.parametrize("case", [c for c in CASES if c[0] == "SGD"], ids=case_name)
@pytest.mark.parametrize(("model", "rows", "d", "k"), SMALL)
def test_bits_of_the_emulator(
    cuda: torch.device,
    emulated: Emulator,
    model: str,
    rows: int,
    d: int,
    k: int,
    case: tuple[str, dict[str, Any]],
) -> None:
    data, parameters = problem(model, rows, d, k, torch.float32)
    loop, own, _ = run(cuda, model, data, parameters, 20, *case[:1], **case[1])
    twin = Loop(parameters, *case)
    twin.run(emulated, model, data, range(20))
    assert torch.equal(loop.losses.cpu(), twin.losses[:20])
    assert torch.equal(torch.cat([p.detach().reshape(-1).cpu() for p in own]), twin.theta)
    assert torch.equal(loop.records.cpu(), twin.records[:20])


def test_loops_go_on(cuda: torch.device) -> None:
    """Two loops are one, with state between."""
    data, parameters = problem("linear", 60, 3, 1, torch.float32)
    x, y, _ = (None if t is None else t.to(cuda) for t in data)
    results = []
    for chunks in ((30,), (11, 19)):
        own = [bare(p.to(cuda)) for p in parameters]
        optimizer = torch.optim.SGD(own, lr=0.1, momentum=0.9)
        for epochs in chunks:
            loop_of("linear", own, (x, y, None), optimizer, epochs).put(epochs)
        results.append(copy.deepcopy(own))
    assert all(map(torch.equal, *results))


def test_out_of_memory(cuda: torch.device) -> None:
    """Nothing has moved, the optimizer is as it was, and the process goes on."""
    data, parameters = problem("linear", 60, 3, 1, torch.float32)
    there = [None if t is None else t.to(cuda) for t in data]
    own = [bare(p.to(cuda)) for p in parameters]
    optimizer = torch.optim.Adam(own)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        loop_of("linear", own, there, optimizer, 2**40)
    assert not optimizer.state
    loop = loop_of("linear", own, there, optimizer, 5)
    loop.put(5)
    assert loop.wait() is None
    assert loop.losses.isfinite().all()


@pytest.mark.parametrize("rows", [20, 50_000])
def test_divergence(cuda: torch.device, rows: int) -> None:
    data, parameters = problem("linear", rows, 3, 1, torch.float32)
    loop, own, _ = run(cuda, "linear", data, parameters, 60, "SGD", lr=1e5)
    epoch = loop.wait()
    assert epoch is not None
    assert 0 < epoch < 60
    assert not loop.losses[epoch].isfinite()
    assert loop.losses[:epoch].isfinite().all()
    assert all(p.isfinite().all() for p in own)


def test_other_threads_run_while_a_loop_is_launched(cuda: torch.device) -> None:
    """More launches than a stream has room for: whoever puts them waits, without the GIL."""
    data, parameters = problem("linear", 200_000, 7, 1, torch.float32)
    x, y, _ = (None if t is None else t.to(cuda) for t in data)
    optimizer = torch.optim.SGD([bare(p.to(cuda)) for p in parameters], lr=1e-3)
    loop = loop_of("linear", optimizer.param_groups[0]["params"], (x, y, None), optimizer, 20_000)
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.wait(1e-3):
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    begun = time.perf_counter()
    loop.put(20_000)
    ended = time.perf_counter()
    done.set()
    thread.join()
    assert loop.wait() is None
    assert sum(begun + 0.01 < at < ended - 0.01 for at in ticks) > 5


def test_loops_do_not_wait(cuda: torch.device) -> None:
    data, parameters = problem("polynomial", 2000, 4, 1, torch.float32)
    x, y, _ = (None if t is None else t.to(cuda) for t in data)
    own = [bare(p.to(cuda)) for p in parameters]
    optimizer = torch.optim.SGD(own, lr=1e-3)
    with no_waiting():
        loop_of("polynomial", own, (x, y, None), optimizer, 10).put(10)
