"""What the plan says of batches that are read: the way is known once they are there."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

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


class Pairs(Dataset[Any]):
    """Rows of its own making, which a loader must read."""

    def __init__(self, outputs: int) -> None:
        random = torch.Generator().manual_seed(0)
        self.x, self.y = (torch.randn(13, size, generator=random) for size in (3, outputs))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.x[row], self.y[row]


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": lambda h, y: (h - y).pow(2).sum(),
    "mean": lambda h, y: ((h - y) ** 2).mean(),
    "sum of means": lambda h, y: ((h - y) ** 2).mean(0).sum(),
    "by rows": lambda h, y: ((h - y) ** 2).sum() / len(y),
    "of one row something else": lambda h, y: (
        (h - y).abs().mean() if len(y) > 1 else (h - y).pow(2).mean()
    ),
}


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_what_it_is_of_a_batch(loss: str, outputs: int) -> None:
    """Of batches of six and a last one of one row."""
    data, loss_fn = Pairs(outputs), LOSSES[loss]
    model, twin = nn.Linear(3, outputs), nn.Linear(3, outputs)
    twin.load_state_dict(model.state_dict())
    history = gdcore.fit(
        model, loss_fn, torch.optim.SGD(model.parameters(), 0.01), data, epochs=2, batch_size=6
    )
    optimizer = torch.optim.SGD(twin.parameters(), 0.01)
    steps = []
    for _ in range(2):
        for x, y in DataLoader(data, batch_size=6):
            optimizer.zero_grad()
            cost = loss_fn(twin(x), y)
            cost.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps.append(cost.item())
    weights = [6, 6, 1] * 2
    for epoch, found in enumerate(history.loss.tolist()):
        of_epoch = slice(3 * epoch, 3 * epoch + 3)
        total = sum(w * c for w, c in zip(weights[of_epoch], steps[of_epoch], strict=True))
        assert found == pytest.approx(total / 13, rel=1e-5)
    torch.testing.assert_close(model.state_dict(), twin.state_dict(), rtol=1e-5, atol=1e-6)
