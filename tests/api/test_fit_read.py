"""What the plan says of batches that are read: the way is known once they are there."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import gdcore

from .drawing import drawn_on_cpu

pytestmark = pytest.mark.usefixtures("device")


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
    """Once a batch is trained eagerly, so is the rest of the epoch."""
    _, after = plans(nn.Linear(3, 1), first, not first)
    assert after.method == ("eager" if first else "stepwise and eager")
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
        self.x, self.y = torch.randn(13, 3), torch.randn(13, outputs)

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


class Rows(Dataset[Any]):
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(40, 3, dtype=torch.float64, generator=generator, device="cpu")
        self.x = x.to(torch.get_default_device())
        self.y = self.x.sum(1, keepdim=True) + 1

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index], self.y[index]


class Noisy(Rows):
    """Draws from the generator that dropout draws from, too, where that is the CPU's."""

    def __getitem__(self, index: int) -> Any:
        noise = torch.randn(3, dtype=torch.float64, device="cpu").to(self.x.device)
        return self.x[index] + 0.1 * noise, self.y[index]


class Ahead(Rows):
    """Targets a little above what the model, which is being trained, predicts."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def __getitem__(self, index: int) -> Any:
        self.model.eval()
        with torch.no_grad():
            target = self.model(self.x[index]) + 1
        self.model.train()
        return self.x[index], target


class IntoBuffers:
    def __init__(self) -> None:
        self.x, self.y = (torch.empty(8, size, dtype=torch.float64) for size in (3, 1))

    def __call__(self, samples: list[Any]) -> tuple[Tensor, Tensor]:
        for row, (x, y) in enumerate(samples):
            self.x[row], self.y[row] = x, y
        return self.x[: len(samples)], self.y[: len(samples)]


def ragged(samples: list[Any]) -> tuple[Tensor, Tensor]:
    """As many columns as the first row of a batch asks for."""
    x, y = map(torch.stack, zip(*samples, strict=True))
    return x[:, : 2 + int(x[0, 0] > 0)], y


def more_targets(samples: list[Any]) -> tuple[Tensor, Tensor]:
    x, y = map(torch.stack, zip(*samples, strict=True))
    return x[:2], y


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.sum(1, keepdim=True)


def two_layers() -> nn.Module:
    layers = nn.Linear(3, 4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 1)
    return nn.Sequential(*layers).double()


def line() -> nn.Module:
    return nn.Linear(3, 1, dtype=torch.float64)


def means(h: Tensor, y: Tensor) -> Tensor:
    return (h.mean() - y.mean()) ** 2


READ: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], DataLoader[Any]], Any]] = {
    "memory that is used again": (
        line,
        lambda _: DataLoader(Rows(), 8, collate_fn=IntoBuffers()),
        nn.MSELoss(),
    ),
    "its random numbers": (line, lambda _: DataLoader(Noisy(), 8, shuffle=True), nn.MSELoss()),
    "random numbers of both": (
        two_layers,
        lambda _: DataLoader(Noisy(), 8, shuffle=True),
        nn.MSELoss(),
    ),
    "data made of the model": (
        two_layers,
        lambda model: DataLoader(Ahead(model), 8),
        nn.MSELoss(),
    ),
    "batches of several widths": (
        Scaled,
        lambda _: DataLoader(Rows(), 8, collate_fn=ragged),
        nn.MSELoss(),
    ),
    "targets without a row": (
        line,
        lambda _: DataLoader(Rows(), 8, collate_fn=more_targets),
        means,
    ),
}


@pytest.mark.parametrize("case", READ)
@pytest.mark.parametrize("method", ["auto", "eager"])
def test_what_is_read_is_what_a_loop_reads(case: str, method: str) -> None:
    make, loader_of, loss_fn = READ[case]
    found = []
    for own in (False, True):
        torch.manual_seed(0)
        model = make()
        optimizer, loader = torch.optim.SGD(model.parameters(), lr=0.01), loader_of(model)
        with drawn_on_cpu():
            if own:
                gdcore.fit(model, loss_fn, optimizer, loader, epochs=3, method=method)
            else:
                for _ in range(3):
                    for x, y in loader:
                        optimizer.zero_grad()
                        loss_fn(model(x), y).backward()
                        optimizer.step()
        found.append([*model.parameters(), torch.get_rng_state()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-14)
