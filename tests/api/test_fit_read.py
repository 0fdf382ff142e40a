"""What the plan says of batches that are read: the way is known once they are there."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import gdcore


class Groups(IterableDataset[Any]):
    """Two batches, the second larger, which are run one after another; some require grad."""

    def __init__(self, *require_grad: bool) -> None:
        self.require_grad = require_grad

    def __iter__(self) -> Iterator[Any]:
        for rows, require_grad in zip((4, 6), self.require_grad, strict=True):
            yield torch.ones(rows, 3, requires_grad=require_grad), torch.ones(rows, 1)


def plans(model: nn.Module, *require_grad: bool, **options: Any) -> tuple[gdcore.Plan, gdcore.Plan]:
    """Before the fit, and after it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    given = (model, nn.MSELoss(), optimizer, DataLoader(Groups(*require_grad), batch_size=None))
    before = gdcore.explain(*given, epochs=2)
    history = gdcore.fit(*given, epochs=2, **options)
    assert isinstance(history.plan, gdcore.Plan)
    return before, history.plan


def test_native_steps() -> None:
    before, after = plans(nn.Linear(3, 1), False, False, strict=True)
    assert before.method == "as read"
    assert "method: as read, because batches are read as they come" in str(before)
    assert (after.method, after.why) == ("stepwise", before.why)


def test_eager_steps() -> None:
    """The reason is theirs, and the line."""
    before, after = plans(nn.Sequential(nn.Linear(3, 1), nn.ReLU()), False, False)
    assert before.method == "as read"
    assert (after.method, after.why) == ("eager", "model: ReLU is not affine in its input")


@pytest.mark.parametrize("first", [False, True])
def test_some_of_both(first: bool) -> None:
    _, after = plans(nn.Linear(3, 1), first, not first)
    assert after.method == "stepwise and eager"
    assert after.why.startswith("x: expected a tensor that does not require grad")


def test_a_fit_that_ends_early_says_what_was_done() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = DataLoader(Groups(True, True), batch_size=None)

    def stop(*_: Any) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError) as error:
        gdcore.fit(model, nn.MSELoss(), optimizer, loader, epochs=2, callbacks=stop)
    assert error.value.history.plan.method == "eager"  # type: ignore[attr-defined]
