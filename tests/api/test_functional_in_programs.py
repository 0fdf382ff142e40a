"""gdcore.functional where PyTorch programs use a loss: checkpoints, hooks, modes, several ranks."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gdcore

from .loss_cases import cases, selections

functional = gdcore.functional


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", cases())
def test_checkpoint(name: str, reentrant: bool) -> None:
    case = cases(weighted=False)[name]
    results = []
    for run in (case.fused, lambda *t: checkpoint(case.fused, *t, use_reentrant=reentrant)):
        leaves = case.leaves()
        loss = run(*leaves)
        loss.backward()
        results.append([loss, *(leaf.grad for leaf in leaves)])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("name", cases())
def test_hooks_on_the_loss_and_its_arguments(name: str) -> None:
    case = cases()[name]
    leaves, seen = case.leaves(), []
    for leaf in leaves:
        leaf.register_hook(lambda grad: seen.append(grad) or 2 * grad)
    loss = case.fused(*leaves)
    loss.register_hook(lambda grad: 3 * grad)
    loss.backward()
    assert len(seen) == len(leaves)
    others = case.leaves()
    slopes = torch.autograd.grad(case.fused(*others), others)
    for leaf, slope in zip(leaves, slopes, strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, 6 * slope, rtol=4 * 2.0**-53, atol=0)


@pytest.mark.parametrize("name", cases())
def test_saved_tensors_pass_through_hooks(name: str) -> None:
    case = cases()[name]
    leaves, packed = case.leaves(), []

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor)
        return tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = case.fused(*leaves)
    loss.backward()
    assert len(packed) >= len(leaves)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("name", cases())
def test_anomaly_mode(name: str) -> None:
    case = cases()[name]
    with torch.autograd.detect_anomaly():
        case.fused(*case.leaves()).backward()
        leaves = case.leaves()
        with torch.no_grad():
            leaves[0].fill_(torch.inf)  # ∞ - ∞ or ∞ · 0 somewhere in a gradient
        loss = case.fused(*leaves) * 0.0
        with pytest.raises(RuntimeError, match="returned nan values"):
            loss.backward()


@pytest.mark.parametrize(("name", "reduction", "weighted"), selections())
def test_modes_without_a_graph(name: str, reduction: str, weighted: bool) -> None:
    case = cases(reduction, weighted)[name]
    expected = case.fused(*case.leaves())
    assert expected.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            value = case.fused(*case.inputs)
            again = case.fused(*case.leaves())
        assert torch.equal(value, expected.detach())
        assert not value.requires_grad
        assert torch.equal(again, value)
    assert value.is_inference()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["mse", "linear_mse", "polynomial_mse"])
def test_versions_are_checked_with_weights_and_in_half_types(name: str, dtype: torch.dtype) -> None:
    """Also where the loss saves copies in another dtype."""
    case = cases("mean", True, dtype)[name]
    leaves = case.leaves()
    case.fused(*leaves).backward(retain_graph=True)
    loss = case.fused(*leaves)
    with torch.no_grad():
        leaves[0].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("dtypes", [("float16", "float32"), ("float32", "float64")], ids=str)
def test_versions_are_checked_of_what_is_promoted(dtypes: tuple[str, str], place: int) -> None:
    for fused in (gdcore.functional.mse_loss, torch.nn.functional.mse_loss):
        y, target = (torch.ones(4, dtype=getattr(torch, dtype)) for dtype in dtypes)
        y.requires_grad_()
        loss = fused(y, target)
        with torch.no_grad():
            (y, target)[place].add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@pytest.mark.parametrize("name", cases())
def test_accumulation_and_clipping(name: str) -> None:
    """Three backward calls add up, and clip_grad_norm_ may write what they gave."""
    case = cases()[name]
    leaves = case.leaves()
    for _ in range(3):
        case.fused(*leaves).backward()
    others = case.leaves()
    slopes = torch.autograd.grad(case.plain(*others), others)
    for leaf, slope in zip(leaves, slopes, strict=True):
        torch.testing.assert_close(leaf.grad, 3 * slope, rtol=1e-12, atol=1e-12)
    norm = nn.utils.clip_grad_norm_(leaves, 0.5)
    torch.testing.assert_close(
        norm, 3 * torch.stack([s.norm() for s in slopes]).norm(), rtol=1e-12, atol=0
    )
    clipped = torch.stack([leaf.grad.norm() for leaf in leaves if leaf.grad is not None]).norm()
    assert 0.49 < clipped.item() <= 0.5


def test_what_a_backward_gave_is_the_users() -> None:
    """Given to .grad without a copy: a second backward must not write into the first's result."""
    weight = torch.randn(1, 3, requires_grad=True)
    loss = functional.linear_mse_loss(torch.randn(4, 3), weight, None, torch.randn(4, 1))
    loss.backward(retain_graph=True)
    assert weight.grad is not None
    first, kept = weight.grad, weight.grad.clone()
    weight.grad = None
    first.zero_()
    loss.backward()
    assert torch.equal(weight.grad, kept)


# ---- several ranks ----


def train(model: nn.Module, inner: nn.Linear, x: Tensor, y: Tensor, loss_fn: str) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125, momentum=0.5)
    loss_of: Callable[[Tensor, Tensor], Tensor] = getattr(functional, loss_fn)
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(model(x), y).backward()
        optimizer.step()


def problem() -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(3)
    return nn.Linear(3, 2).double(), torch.randn(16, 3).double(), torch.randn(16, 2).double()


def rank(index: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=index, world_size=2
    )
    model, x, y = problem()
    half = slice(8 * index, 8 * index + 8)
    parallel = nn.parallel.DistributedDataParallel(model)
    train(parallel, model, x[half], y[half], "mse_loss")
    torch.save(model.state_dict(), Path(folder) / f"{index}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch without gloo")
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    """The mean of two halves' gradients is the whole batch's, to the rounding of five steps."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(rank, (port, str(tmp_path)), nprocs=2)
    model, x, y = problem()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, model, x, y, "mse_loss")
    ranks = [torch.load(tmp_path / f"{index}.pt") for index in range(2)]
    for name, value in model.state_dict().items():
        assert torch.equal(ranks[0][name], ranks[1][name])
        assert not torch.equal(value, start[name])
        torch.testing.assert_close(ranks[0][name], value, rtol=1e-12, atol=1e-12)
