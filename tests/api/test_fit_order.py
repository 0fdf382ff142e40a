"""Minibatches come in the order in which PyTorch's DataLoader gives them, from the same draws."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import gdcore

from ..devices import NOT_EMULATED, ON_CPU
from .drawing import drawn_on_cpu

pytestmark = pytest.mark.usefixtures("device")

ROWS, EPOCHS = 23, 3
MEAN = 64 * 2**-53
Loader = DataLoader[Any]


def squared(prediction: Tensor, y: Tensor) -> Tensor:
    """A loss that is not recognised, so that it is computed as it is written."""
    return (prediction - y).square().sum() / len(y)


class OwnSGD(torch.optim.SGD):
    """An optimizer that is not recognised, so that its own step is made."""


def tensors() -> tuple[Tensor, Tensor]:
    options: Any = {"generator": seeded(5), "dtype": torch.float64, "device": "cpu"}
    x, y = torch.randn(ROWS, 3, **options), torch.randn(ROWS, 2, **options)
    there = torch.get_default_device()
    return x.to(there), y.to(there)


class Squares(Dataset[Any]):
    """Not a TensorDataset: it has to be read, and it draws random numbers of its own."""

    def __init__(self, data: Any) -> None:
        self.x, self.y = data.tensors

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        return self.x[index] + torch.rand((), dtype=torch.float64), self.y[index]


class Stream(IterableDataset[Any]):
    def __init__(self, data: Any) -> None:
        self.tensors = data.tensors

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(*self.tensors, strict=True))


def doubled(rows: list[Any]) -> list[Tensor]:
    x, y = (torch.stack(each) for each in zip(*rows, strict=True))
    return [2 * x, y]


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_generators(data: Dataset[Any]) -> Loader:
    sampler = RandomSampler(data, generator=seeded(7))  # type: ignore[arg-type]
    return DataLoader(data, 4, sampler=sampler, generator=seeded())


def uneven(data: Dataset[Any]) -> Loader:
    batches = [[0, 5, 3], [1], [2, 4, 6], [7, 8], [9, 10, 11, 12]]
    return DataLoader(data, batch_sampler=batches)


def sampled(make: Callable[[Any], Any], **options: Any) -> Callable[[Dataset[Any]], Loader]:
    return lambda data: DataLoader(data, 4, sampler=make(data), **options)


LOADERS: dict[str, Callable[[Dataset[Any]], Loader]] = {
    "in order": lambda d: DataLoader(d, 4),
    "shuffled": lambda d: DataLoader(d, 4, shuffle=True),
    "shuffled by a generator": lambda d: DataLoader(d, 4, shuffle=True, generator=seeded()),
    "two generators": two_generators,
    "without the last": lambda d: DataLoader(d, 4, shuffle=True, drop_last=True),
    "without the last, by a generator": lambda d: DataLoader(
        d, 5, shuffle=True, drop_last=True, generator=seeded()
    ),
    "one batch": lambda d: DataLoader(d, 100, shuffle=True, generator=seeded()),
    "batches of one": lambda d: DataLoader(d, 1, shuffle=True),
    "replacement": sampled(lambda d: RandomSampler(d, replacement=True)),
    "fewer": sampled(lambda d: RandomSampler(d, num_samples=10, generator=seeded())),
    "more": sampled(lambda d: RandomSampler(d, num_samples=50)),
    "more, by a generator": sampled(lambda d: RandomSampler(d, num_samples=50, generator=seeded())),
    "twice": sampled(lambda d: RandomSampler(d, num_samples=2 * ROWS, generator=seeded())),
    "a subset": sampled(lambda d: SubsetRandomSampler(range(0, ROWS, 2)), drop_last=True),
    "weighted": sampled(lambda d: WeightedRandomSampler([1.0 + i for i in range(ROWS)], 30)),
    "backwards": sampled(lambda d: list(reversed(range(ROWS)))),
    "from the end": sampled(lambda d: [0, -1, 5, -3, 2, -ROWS]),
    "tensors": sampled(lambda d: torch.arange(ROWS - 1, -1, -1)),
    "a batch sampler": lambda d: DataLoader(
        d,
        batch_sampler=BatchSampler(RandomSampler(d), 6, drop_last=True),  # type: ignore[arg-type]
    ),
    "uneven batches": uneven,
    "a collate_fn": lambda d: DataLoader(d, 4, shuffle=True, collate_fn=doubled),
    "no batching": lambda d: DataLoader(
        d,
        batch_size=None,
        sampler=BatchSampler(SequentialSampler(d), 4, drop_last=False),  # type: ignore[arg-type]
    ),
    "a dataset of one's own": lambda d: DataLoader(Squares(d), 4, shuffle=True),
    "a stream": lambda d: DataLoader(Stream(d), 4),
}


class Run:
    """A model and a loader, each time the same."""

    def __init__(self, name: str, kind: type[torch.optim.SGD], momentum: float = 0.9) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2, dtype=torch.float64)
        self.optimizer = kind(self.model.parameters(), lr=0.05, momentum=momentum)
        data = TensorDataset(*tensors())
        with drawn_on_cpu():
            self.loader = LOADERS[name](data)
        torch.manual_seed(1)

    def generators(self) -> list[Tensor]:
        own = (self.loader.generator, getattr(self.loader.sampler, "generator", None))
        return [torch.get_rng_state(), *(g.get_state() for g in own if g is not None)]

    def state(self) -> list[Tensor]:
        buffers = [s["momentum_buffer"] for s in self.optimizer.state.values()]
        return [*(p.detach() for p in self.model.parameters()), *buffers, *self.generators()]


def looped(run: Run, step: Callable[[Tensor, Tensor], Tensor]) -> tuple[list[float], list[float]]:
    """The losses of epochs and of steps, as a loop over the loader has them."""
    torch.manual_seed(1)
    epochs, steps = [], []
    for _ in range(EPOCHS):
        losses, rows = [], []
        with drawn_on_cpu():
            for x, y in run.loader:
                losses.append(step(x, y).item())
                rows.append(len(x))
        weighted = zip(losses, rows, strict=True)
        epochs.append(sum(loss * count for loss, count in weighted) / sum(rows))
        steps += losses
    return epochs, steps


def assert_same(
    state: list[Tensor], other: list[Tensor], history: gdcore.History, losses: Any, rtol: float
) -> None:
    torch.testing.assert_close(state, other, rtol=rtol, atol=rtol)
    assert history.step_loss is not None
    epochs, steps = (torch.tensor(each, dtype=torch.float64, device="cpu") for each in losses)
    torch.testing.assert_close(history.step_loss, steps, rtol=rtol, atol=0)
    # A mean of at most 50 numbers.
    torch.testing.assert_close(history.loss, epochs, rtol=rtol + MEAN, atol=0)


@pytest.mark.parametrize("name", LOADERS)
def test_eagerly_to_the_bit_as_the_loop_over_the_loader(name: str, device: torch.device) -> None:
    """But on CUDA, where products may be summed in an order that depends on where the rows lie."""
    run, other = Run(name, OwnSGD), Run(name, OwnSGD)
    with drawn_on_cpu():
        history = gdcore.fit(
            run.model, squared, run.optimizer, run.loader, epochs=EPOCHS, record_steps=True
        )
    assert history.plan.method == "eager"

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = squared(other.model(x), y)
        other.optimizer.zero_grad()
        loss.backward()
        other.optimizer.step()
        return loss

    state = run.state()
    losses = looped(other, step)
    rtol = 0.0 if device.type == "cpu" else 1e-12
    assert_same(state, other.state(), history, losses, rtol)
    assert len(history.loss.unique()) == EPOCHS


@pytest.mark.parametrize("name", LOADERS)
def test_natively_to_the_bit_as_train_step_over_the_loader(name: str) -> None:
    run, other = Run(name, torch.optim.SGD), Run(name, torch.optim.SGD)
    loss_fn = nn.MSELoss(reduction="sum")
    for group in (*run.optimizer.param_groups, *other.optimizer.param_groups):
        group["lr"] = 0.002
    with drawn_on_cpu():
        history = gdcore.fit(
            run.model,
            loss_fn,
            run.optimizer,
            run.loader,
            epochs=EPOCHS,
            record_steps=True,
            strict=True,
        )
    assert history.plan.method == "stepwise"
    step = gdcore.train_step(other.model, loss_fn, other.optimizer, strict=True)
    state = run.state()
    losses = looped(other, step)
    assert_same(state, other.state(), history, losses, 0.0)


@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_arguments_of_fit_are_those_of_the_loader(shuffle: bool, generator: bool) -> None:
    x, y = tensors()
    runs = []
    for way in ("arguments", "loader", "dataset"):
        torch.manual_seed(0)
        model = nn.Linear(3, 2, dtype=torch.float64)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        options: Any = {
            "batch_size": 4,
            "shuffle": shuffle,
            "generator": seeded() if generator else None,
        }
        data: Any = (x, y)
        if way == "loader":
            data, options = DataLoader(TensorDataset(x, y), **options), {}
        elif way == "dataset":
            data = TensorDataset(x, y)
        with drawn_on_cpu():
            history = gdcore.fit(model, nn.MSELoss(), optimizer, data, epochs=EPOCHS, **options)
        runs.append([history.loss, *model.parameters(), torch.get_rng_state()])
    for other in runs[1:]:
        assert all(map(torch.equal, runs[0], other))


@ON_CPU  # CUDA does not outlive the fork of a worker
def test_workers_change_nothing() -> None:
    states = []
    for workers in (0, 1):
        torch.manual_seed(0)
        model = nn.Linear(3, 2, dtype=torch.float64)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        loader = DataLoader(
            TensorDataset(*tensors()), 4, shuffle=True, num_workers=workers, collate_fn=doubled
        )
        gdcore.fit(model, nn.MSELoss(), optimizer, loader, epochs=2)
        states.append([*model.parameters(), torch.get_rng_state()])
    assert all(map(torch.equal, *states))


def test_groups_of_batches_of_what_does_not_fit_in_memory() -> None:
    """A reader hands over a few batches at a time, and says how large they are."""
    from gdcore._loop.batches import Reader, groups

    x = torch.arange(40.0).reshape(20, 2)
    reader = Reader(DataLoader(TensorDataset(x, x), 3))
    few = list(groups(reader.batches(), most=12))
    assert [(rows.number, size) for rows, size in few] == [(6, 3), (6, 3), (6, 3), (2, 2)]
    assert torch.equal(torch.cat([rows.y for rows, _ in few]), x)
    assert [(rows.number, size) for rows, size in groups(reader.batches())] == [(20, 3)]


def test_a_loader_whose_batches_were_resized() -> None:
    """Its sampler of batches makes them: the loader's own number is not asked."""
    x, y = tensors()
    loader = DataLoader(TensorDataset(x, y), 32)
    assert isinstance(loader.batch_sampler, BatchSampler)
    loader.batch_sampler.batch_size = 5
    model = nn.Linear(3, 2, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    history = gdcore.fit(model, nn.MSELoss(), optimizer, loader, epochs=1, record_steps=True)
    assert history.step_loss is not None
    assert len(history.step_loss) == len(list(loader))


@pytest.mark.parametrize("method", ["stepwise", "eager"])
@pytest.mark.parametrize("read", [False, True])
def test_divergence_in_the_middle_of_an_epoch(read: bool, method: str) -> None:
    """The epoch's loss is not finite, the steps until then are kept, and so are finite values."""
    x, y = tensors()
    torch.manual_seed(0)
    model = nn.Linear(3, 2, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e9)
    loader = DataLoader(TensorDataset(x, y), 4, collate_fn=doubled if read else None)
    with pytest.raises(gdcore.DivergenceError) as info:
        gdcore.fit(
            model, nn.MSELoss(), optimizer, loader, epochs=50, record_steps=True, method=method
        )
    history = info.value.history
    assert history.plan.method == method
    assert len(history.loss) == info.value.epoch + 1
    assert history.step_loss is not None
    assert history.step_loss[:-1].isfinite().all()
    assert not history.step_loss[-1].isfinite()
    assert not history.loss[-1].isfinite()
    assert all(p.isfinite().all() for p in model.parameters())


def test_weights_are_read_with_the_rows(device: torch.device) -> None:
    """As the third element of what a loader gives, whether it is replayed or read."""
    x, y = tensors()
    weight = torch.linspace(0, 1, ROWS, dtype=torch.float64)
    results = []
    for collate in (None, lambda rows: [torch.stack(each) for each in zip(*rows, strict=True)]):
        torch.manual_seed(0)
        model = nn.Linear(3, 2, dtype=torch.float64)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        loader = DataLoader(TensorDataset(x, y, weight), 4, shuffle=True, collate_fn=collate)
        options: Any = {"epochs": 2, "method": "eager"}
        with drawn_on_cpu():
            history = gdcore.fit(model, nn.MSELoss(), optimizer, loader, **options)
        results.append([history.loss, *(p.detach() for p in model.parameters())])
    torch.testing.assert_close(results[0][0], results[1][0], rtol=MEAN, atol=0)
    rtol = 0.0 if device.type == "cpu" else 1e-12
    torch.testing.assert_close(results[0][1:], results[1][1:], rtol=rtol, atol=0)
    unweighted = nn.Linear(3, 2, dtype=torch.float64)
    optimizer = torch.optim.SGD(unweighted.parameters(), lr=0.05)
    other = gdcore.fit(unweighted, nn.MSELoss(), optimizer, (x, y), epochs=2, batch_size=4)
    assert not torch.equal(other.loss, results[0][0])


@NOT_EMULATED  # a thousand epochs of 2000 rows
def test_one_batch_of_all_rows() -> None:
    """It is no full batch: its rows come in an order, which compressed rows do not have."""
    x, y = torch.randn(2000, 4), torch.randn(2000, 1)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    history = gdcore.fit(
        model, nn.MSELoss(), optimizer, (x, y), epochs=1000, batch_size=3000, shuffle=True
    )
    assert history.plan.method == "stepwise"
    assert history.loss[-1] < history.loss[0]
