"""`gdcore.optim` over emulated launches: groups and state as torch keeps them, right counts."""

import pytest
import torch

from ..api.optimizers import FULL, NAMES, everything, ours
from .emulator import Emulator


def stepped(name: str, count: int, steps: int) -> torch.optim.Optimizer:
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(5, generator=generator)) for _ in range(count)]
    optimizer = ours(name, parameters, **FULL[name])
    for _ in range(steps):
        for p in parameters:
            p.grad = torch.randn(5, generator=generator)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("name", NAMES)
def test_one_launch_of_the_cpu_s_bits(emulated: Emulator, name: str) -> None:
    wanted = stepped(name, 100, 3)
    with emulated.device():
        found = stepped(name, 100, 3)
        assert emulated.launches == 1
    for mine, other in zip(everything(found), everything(wanted), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_launch_is_no_step(emulated: Emulator, name: str) -> None:
    with emulated.device() as fail:
        optimizer = stepped(name, 3, 2)
        before = [tensor.clone() for tensor in everything(optimizer)]
        fail(True)
        with pytest.raises(RuntimeError, match="a launch that failed"):
            optimizer.step()
    for now, then in zip(everything(optimizer), before, strict=True):
        assert torch.equal(now, then)
