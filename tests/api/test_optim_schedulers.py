"""Every scheduler of torch's drives every optimizer here as it drives its namesake."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import lr_scheduler

from ..devices import UPDATES_NOT_EMULATED
from .optimizers import FULL, NAMES, advance, close, everything, ours, start, theirs

pytestmark = [pytest.mark.usefixtures("device_of_updates"), UPDATES_NOT_EMULATED]

each = pytest.mark.parametrize("name", NAMES)


def schedulers(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Every scheduler of torch's."""
    momentum = next((key for key in ("momentum", "betas") if key in optimizer.defaults), None)

    def of(kind: str, *args: Any, **kwargs: Any) -> Callable[[], Any]:
        return lambda: getattr(lr_scheduler, kind)(optimizer, *args, **kwargs)

    def step_and_exponential() -> list[Any]:
        return [of("StepLR", step_size=2, gamma=0.5)(), of("ExponentialLR", gamma=0.75)()]

    return {
        "LambdaLR": of("LambdaLR", lambda epoch: 1 / (1 + epoch)),
        "MultiplicativeLR": of("MultiplicativeLR", lambda epoch: 0.75),
        "StepLR": of("StepLR", step_size=2, gamma=0.5),
        "MultiStepLR": of("MultiStepLR", [1, 3], gamma=0.5),
        "ConstantLR": of("ConstantLR", factor=0.5, total_iters=3),
        "LinearLR": of("LinearLR", total_iters=4),
        "ExponentialLR": of("ExponentialLR", gamma=0.75),
        "PolynomialLR": of("PolynomialLR", total_iters=8),
        "CosineAnnealingLR": of("CosineAnnealingLR", T_max=10),
        "CosineAnnealingWarmRestarts": of("CosineAnnealingWarmRestarts", T_0=3),
        "ReduceLROnPlateau": of("ReduceLROnPlateau", patience=0),
        "CyclicLR": of("CyclicLR", 0.01, 0.1, step_size_up=2, cycle_momentum=momentum is not None),
        "OneCycleLR": of("OneCycleLR", max_lr=0.1, total_steps=9),
        "ChainedScheduler": lambda: lr_scheduler.ChainedScheduler(step_and_exponential()),
        "SequentialLR": lambda: lr_scheduler.SequentialLR(
            optimizer, step_and_exponential(), milestones=[3]
        ),
        "SWALR": lambda: torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.02, anneal_epochs=3),
    }


def test_there_is_a_case_for_every_scheduler() -> None:
    own = {name for name in lr_scheduler.__all__ if name not in ("LRScheduler", "_LRScheduler")}
    assert own <= set(schedulers(torch.optim.SGD([torch.zeros(1)])))


@each
@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("which", schedulers(torch.optim.SGD([torch.zeros(1)])))
def test_schedulers_drive_the_rate(name: str, which: str, tensor: bool) -> None:
    """Warnings are errors here: a scheduler that missed the step would raise."""
    results = []
    for make in (ours, theirs):
        lr = torch.tensor(0.1, dtype=torch.float64) if tensor else 0.1
        optimizer = make(name, [start()], **{**FULL[name], "lr": lr})
        scheduler = schedulers(optimizer)[which]()
        for step in range(6):
            advance(optimizer, range(step, step + 1))
            scheduler.step(1.0) if which == "ReduceLROnPlateau" else scheduler.step()
        assert isinstance(optimizer.param_groups[0]["lr"], Tensor) == tensor
        results.append(everything(optimizer))
    close(*results)
    assert not torch.equal(results[0][0], start())
