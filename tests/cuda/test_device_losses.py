"""The losses on a device: exact sums, autograd, the emulator's bits, and PyTorch's surroundings."""

import copy

import pytest
import torch
from torch import Tensor

import gdcore

from ..api.loss_cases import cases, selections
from ..kernels import test_legendre as legendre
from ..kernels import test_linear_mse as linear
from ..kernels import test_polynomial_mse as polynomial
from ..kernels.layouts import MATRICES, contiguous
from ..kernels.rounding import check
from . import test_emulated_halves as halves
from .conftest import no_waiting
from .emulator import Emulator
from .test_emulated_losses import SHAPES, linear_results, polynomial_results

pytestmark = pytest.mark.cuda
ops = torch.ops.gdcore


def moved(p: linear.Problem, device: torch.device) -> linear.Problem:
    return linear.Problem(*(None if t is None else t.to(device) for t in p))


@pytest.mark.parametrize(("d", "k"), [*SHAPES, (64, 1), (513, 1), (8, 17)])
def test_linear(cuda: torch.device, dtype: torch.dtype, d: int, k: int) -> None:
    for n in (1, 31, 5000):
        for bias in (True, False):
            p = linear.make(n, d, k, bias, dtype)
            exact = linear.exact_sums(p)
            q = moved(p, cuda)
            for reduction, divisor in (("mean", n * k), ("sum", 1)):
                bare = (q.x, q.weight, q.bias, q.target, reduction, True)
                for name, result in zip(linear.NAMES, ops.linear_mse(*bare), strict=True):
                    if name != "dbias" or bias:
                        wanted = exact[name].result(1 if name == "loss" else 2, divisor)
                        check(result.cpu(), wanted, f"{name} of {n} rows, {reduction}")


@pytest.mark.parametrize("degree", polynomial.SOME_DEGREES)
def test_polynomial(cuda: torch.device, dtype: torch.dtype, degree: int) -> None:
    for n in (1, 100_003):
        p = polynomial.make(n, degree, dtype)
        squares, sums = polynomial.exact_sums(p)
        loss, gradient = ops.polynomial_mse(*(t.to(cuda) for t in p), "mean")
        check(loss.cpu(), squares.result(1, n), f"loss of {n}")
        for m, exact in enumerate(sums):
            check(gradient[m].cpu(), exact.result(2, n), f"power {m} of {n}")


def test_legendre(cuda: torch.device, dtype: torch.dtype) -> None:
    p = legendre.make(70_001, dtype)
    results = ops.legendre_mse(*(t.to(cuda) for t in p), "mean")
    for name, result, sums in zip(legendre.NAMES, results, legendre.exact_sums(p), strict=True):
        check(result.cpu(), sums.result(1 if name == "loss" else 2, len(p.x)), name)


def test_legendre_p3(cuda: torch.device, dtype: torch.dtype) -> None:
    x = torch.linspace(-2, 2, 70_001, dtype=dtype)
    mine = x.to(cuda).requires_grad_()
    value = gdcore.functional.legendre_p3(mine)
    value.sum().backward()
    exact = x.double()
    # Few operations on numbers of at most 60, of which some meet their opposites.
    close = {"rtol": 0, "atol": 300 * torch.finfo(dtype).eps}
    torch.testing.assert_close(
        value.detach().cpu().double(), (5 * exact**3 - 3 * exact) / 2, **close
    )
    assert mine.grad is not None
    torch.testing.assert_close(mine.grad.cpu().double(), 3 * (5 * exact**2 - 1) / 2, **close)


@pytest.mark.parametrize(("name", "reduction", "weighted"), selections())
def test_autograd(cuda: torch.device, name: str, reduction: str, weighted: bool) -> None:
    """What the losses are on the CPU: value, gradients, and gradients of gradients."""
    with cuda:
        case = cases(reduction, weighted)[name]
    fused, plain = case.fused(*case.inputs), case.plain(*case.inputs)
    torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-12)
    leaves = case.leaves()
    assert torch.autograd.gradcheck(case.fused, leaves)
    assert torch.autograd.gradgradcheck(case.fused, leaves)


@pytest.mark.parametrize("layout", MATRICES)
def test_layouts(cuda: torch.device, layout: str) -> None:
    p = linear.make(70, 12, 2, True, torch.float32)
    x, target = (MATRICES[layout](t.to(cuda)) for t in (p.x, p.target))
    assert p.bias is not None
    weight, bias = p.weight.to(cuda), p.bias.to(cuda)
    ours = ops.linear_mse(x, weight, bias, target, "mean", True)
    theirs = ops.linear_mse(contiguous(x), weight, bias, contiguous(target), "mean", True)
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_bits_of_the_emulator(cuda: torch.device, emulated: Emulator, d: int, k: int) -> None:
    """The device runs what the emulator runs, in the same order, with the same roundings."""
    p = linear.make(1100, d, k, True, torch.float32)
    ours = ops.linear_mse(*moved(p, cuda)[:4], "mean", False)
    theirs = linear_results(emulated, p, True, False)
    for result, other in zip(ours, theirs.values(), strict=False):
        assert torch.equal(result.cpu(), other)
    c = polynomial.make(5000, 3, torch.float32)
    results = ops.polynomial_mse(*(t.to(cuda) for t in c), "mean")
    for result, other in zip(results, polynomial_results(emulated, c, None, True), strict=True):
        assert torch.equal(result.cpu(), other)


def test_same_bits_every_time(cuda: torch.device) -> None:
    x = torch.randn(1_000_003, 5, device=cuda)
    y, weight = torch.randn(1_000_003, 1, device=cuda), torch.randn(1, 5, device=cuda)
    first = ops.linear_mse(x, weight, None, y, "mean", False)
    for _ in range(20):
        again = ops.linear_mse(x, weight, None, y, "mean", False)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])


def test_more_than_int32_elements(cuda: torch.device) -> None:
    count = 2**31 + 5
    if torch.cuda.mem_get_info(cuda)[0] < 5 * count:
        pytest.skip("too little memory")
    x = torch.ones(count, device=cuda)
    loss, _ = ops.mse(x, torch.zeros((), device=cuda).expand(count), "mean", False)
    assert loss.item() == 1.0


def test_nothing_waits(cuda: torch.device) -> None:
    x, y = torch.ones(100, 3, device=cuda), torch.ones(100, 1, device=cuda)
    weight = torch.ones(1, 3, device=cuda, requires_grad=True)
    scale = torch.ones(100, 1, device=cuda)
    optimizers = (gdcore.optim.SGD, gdcore.optim.Adam, gdcore.optim.RMSprop)
    with no_waiting():
        gdcore.functional.linear_mse_loss(x, weight, None, y, loss_weight=scale).backward()
        gdcore.functional.mse_loss(x @ weight.t(), y, weight=scale).backward()
        for make in optimizers:
            make([weight], lr=0.1).step()


def test_streams(cuda: torch.device) -> None:
    """On the current stream: after what was put there before, and before what follows."""
    stream = torch.cuda.Stream(cuda)
    x = torch.zeros(1 << 22, device=cuda)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        x.fill_(2.0)
        loss = gdcore.functional.mse_loss(x, torch.zeros_like(x))
        x.fill_(9.0)
    stream.synchronize()
    assert loss.item() == 4.0


def test_graph_capture(cuda: torch.device) -> None:
    x, y = torch.randn(1000, 3, device=cuda), torch.randn(1000, 1, device=cuda)
    weight = torch.nn.Parameter(torch.zeros(1, 3, device=cuda))
    optimizer = gdcore.optim.SGD([weight], lr=0.1, momentum=0.9)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=False)
        loss = gdcore.functional.linear_mse_loss(x, weight, None, y)
        loss.backward()
        optimizer.step()
        return loss

    stream = torch.cuda.Stream(cuda)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    twin = torch.nn.Parameter(weight.detach().clone())
    other = gdcore.optim.SGD([twin], lr=0.1, momentum=0.9)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # it keeps the tensors it is given
    losses = []
    for _ in range(5):
        graph.replay()
        losses.append(captured.item())
    for loss in losses:
        other.zero_grad()
        plain = gdcore.functional.linear_mse_loss(x, twin, None, y)
        plain.backward()
        other.step()
        assert plain.item() == loss
    assert torch.equal(weight, twin)


def test_mixed_devices(cuda: torch.device) -> None:
    x, y = torch.ones(3, device=cuda), torch.ones(3)
    with pytest.raises(
        ValueError, match=r"target: expected a tensor on cuda:\d as input, got one on cpu"
    ):
        gdcore.functional.mse_loss(x, y)
    with pytest.raises(ValueError, match=r"target: .* got one on cuda:\d"):
        gdcore.functional.mse_loss(y, x)


def test_out_of_memory(cuda: torch.device) -> None:
    """The error surfaces, and the process goes on."""
    x = torch.ones(1, device=cuda).expand(2**40)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        ops.mse(x, x, "mean", True)
    loss, _ = ops.mse(x[:5], torch.zeros(5, device=cuda), "mean", True)
    assert loss.item() == 1.0


def test_compile(cuda: torch.device) -> None:
    x, y = torch.randn(64, 3, device=cuda), torch.randn(64, 2, device=cuda)
    weight = torch.randn(2, 3, device=cuda, requires_grad=True)

    def loss(weight: Tensor) -> Tensor:
        return gdcore.functional.linear_mse_loss(x, weight, None, y).sqrt()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    (ours,) = torch.autograd.grad(compiled(weight), weight)
    (theirs,) = torch.autograd.grad(loss(weight), weight)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(cuda: torch.device, half: torch.dtype) -> None:
    x, y = torch.randn(50, 3, device=cuda), torch.randn(50, 1, device=cuda)
    weight = torch.randn(1, 3, device=cuda, requires_grad=True)
    with torch.autocast("cuda", half):
        prediction = torch.nn.functional.linear(x, weight)
        assert prediction.dtype == half
        ours = gdcore.functional.mse_loss(prediction, y.to(half))
        theirs = torch.nn.functional.mse_loss(prediction, y.to(half))
    assert ours.dtype == theirs.dtype == torch.float32
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("half", halves.HALVES, ids=str)
@pytest.mark.parametrize("name", halves.CASES)
def test_half_types(cuda: torch.device, name: str, half: torch.dtype) -> None:
    ours, theirs, stored, wide, wanted = halves.case(name, half)
    factor = 1.0 if name == "wide" else 2.0**12
    on_device = [t.detach().to(cuda).requires_grad_(t.requires_grad) for t in stored]
    loss, exact = ours(*on_device), theirs(*wide)
    halves.rounded_once(loss.detach().cpu(), exact.detach(), half)
    with no_waiting():
        (loss * factor).backward()
    (exact * factor).backward()
    for i in wanted:
        gradient = on_device[i].grad
        assert gradient is not None
        halves.rounded_once(gradient.cpu(), wide[i].grad, half)


def test_grad_scaler(cuda: torch.device) -> None:
    """An overflow skips the step; else the parameters are plain PyTorch's."""
    x, y = torch.randn(50, 3, device=cuda), torch.randn(50, 1, device=cuda)
    found = []
    for optim in (gdcore.optim, torch.optim):
        weight = torch.nn.Parameter(torch.ones(1, 3, device=cuda))
        optimizer = optim.Adam([weight], lr=0.1)
        scaler = torch.amp.GradScaler("cuda", init_scale=2.0**100, growth_interval=100)
        for _ in range(12):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(x @ weight.t(), y)
            scaler.scale(loss * 2.0**30).backward()
            scaler.step(optimizer)
            scaler.update()
        found.append((weight.detach(), scaler.get_scale()))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
