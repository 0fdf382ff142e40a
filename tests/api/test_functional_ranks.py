"""gdcore.functional in several processes, which train what one trains."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn

import gdcore

functional = gdcore.functional


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
