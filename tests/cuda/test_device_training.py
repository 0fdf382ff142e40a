"""Loops on a device: the emulator's bits, plain PyTorch's numbers, and what ends them."""

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

from ..api.optimizers import FULL, NAMES
from .conftest import no_waiting
from .emulator import Emulator
from .test_emulated_training import CASES, SMALL, Loop, problem
from .test_emulated_training import name as case_name

pytestmark = pytest.mark.cuda
_cuda_loop = pytest.importorskip("gdcore._native.cuda_loop", reason="built without the CUDA path")


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
