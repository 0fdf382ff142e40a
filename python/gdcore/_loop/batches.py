"""The data of a fit: all rows at once, batches of them in an order, or what a loader reads.

The order is PyTorch's to the row, because it is drawn from the same generators by the same calls in
the same order: a `DataLoader` draws a seed for its workers when an epoch begins, and its sampler
draws afterwards.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from .. import _checks
from .._native.shuffle import Order, Shuffled, rows_in, shuffled, skip
from .rows import Inputs, Rows, check_weight, rows_of

_SIZED = (SequentialSampler, RandomSampler)
"""Samplers that give as many rows as they say."""


def counts_of(number: int, batch_size: int | None, in_order: bool) -> tuple[int, ...]:
    """How many rows a model is given at once: those of a whole batch and of the last one.

    None where all come at once, as they lie; what depends on several of them is then the same for
    every epoch.
    """
    if batch_size is None or (batch_size >= number and in_order):
        return ()
    if batch_size >= number:
        return (number,)
    return tuple({batch_size, number % batch_size or batch_size})


class Batches:
    """Batches of rows that are all in memory, in the order in which a loader would give them."""

    def __init__(self, rows: Rows, loader: "DataLoader[Any]") -> None:
        self.rows = rows
        self.loader = loader
        # The loader's own, which it does not ask: its sampler of batches makes them.
        batches: Any = loader.batch_sampler
        self.batch_size: int = batches.batch_size
        self.drop_last: bool = batches.drop_last
        sampler = loader.sampler
        if self.drop_last and isinstance(sampler, _SIZED) and len(sampler) < self.batch_size:
            raise ValueError(
                f"batch_size: expected at most {len(sampler)}, all rows of an epoch, with "
                f"drop_last, got {self.batch_size}"
            )

    @property
    def lie_in_order(self) -> bool:
        """Whether every epoch takes all rows as they lie."""
        sampler, rows = self.loader.sampler, self.rows.number
        left_out = self.drop_last and rows % self.batch_size
        return type(sampler) is SequentialSampler and len(sampler) == rows and not left_out

    def order(self) -> Order | None:
        """The rows of the next epoch; None for all as they lie. Draws what an epoch of the loader
        draws.
        """
        loader, rows = self.loader, self.rows.number
        torch.empty((), dtype=torch.int64, device="cpu").random_(generator=loader.generator)
        if self.lie_in_order:
            return None
        order = _drawn(loader.sampler, rows)
        _check_within(order, rows)
        least = self.batch_size if self.drop_last else 1
        if len(order) < least:
            raise ValueError(
                f"sampler: expected to give at least {least} of the rows, got {len(order)}"
            )
        if self.drop_last:
            count = len(order) - len(order) % self.batch_size
            order = order.first(count) if isinstance(order, Shuffled) else order[:count]
        return order


def _drawn(sampler: Any, rows: int) -> Order:
    if type(sampler) is SequentialSampler:
        return torch.arange(len(sampler), device="cpu")
    if type(sampler) is not RandomSampler or sampler.replacement:
        return _listed(list(sampler), rows)
    n, wanted = len(sampler.data_source), sampler.num_samples
    generator, own = sampler.generator, sampler.generator is None
    if generator is None:
        seed = int(torch.empty((), dtype=torch.int64, device="cpu").random_().item())
        generator = torch.Generator().manual_seed(seed)
    parts = [shuffled(n, generator) for _ in range(wanted // n)]
    if wanted % n:
        parts.append(rows_in(shuffled(n, generator))[: wanted % n])
    elif not own:  # the sampler draws one more, and takes none of it
        skip(n, generator)
    return parts[0] if len(parts) == 1 else torch.cat([rows_in(part) for part in parts])


def _check_within(order: Order, rows: int) -> None:
    """That a loader's dataset holds what its sampler, which may be of a longer one, gives."""
    if isinstance(order, Shuffled):
        outside = [] if order.n <= rows else [order.n - 1]
    else:
        outside = order[(order < 0) | (order >= rows)][:1].tolist()
    if outside:
        raise ValueError(f"sampler: expected rows from 0 to {rows - 1}, got {outside[0]}")


def _listed(given: list[Any], rows: int) -> Tensor:
    """Indices as a dataset of tensors takes them: integers, the negative ones from the end."""
    indices = given
    if not set(map(type, given)) <= {int}:
        indices = [_index(each) for each in given]
    order = torch.tensor(indices, dtype=torch.int64, device="cpu")
    return order.where((order >= 0) | (order < -rows), order + rows)


def _index(given: Any) -> int:
    if isinstance(given, Tensor) and not given.dtype.is_floating_point and given.dim() == 0:
        given = given.item()
    return _checks.integer("sampler", given)


class Reader:
    """A loader that is read anew every epoch, in its order."""

    def __init__(self, loader: "DataLoader[Any]") -> None:
        self.loader = loader

    def batches(self) -> Iterator[Rows]:
        """Those of an epoch, each read when it is asked for."""
        for batch in self.loader:
            rows = rows_of(batch)
            check_weight(rows.weight, all_rows=False)
            yield rows


def groups(batches: Iterable[Rows], most: int = 1 << 24) -> Iterator[tuple[Rows, int]]:
    """Batches in groups: their rows one after another, and the batch size.

    Each batch of a group has that many rows, its last one may have fewer. A group holds about
    ``most`` elements, so that data past memory can be read.
    """
    held: list[Rows] = []
    elements = 0
    for rows in batches:
        fits = held and rows.number <= held[0].number and held[-1].number == held[0].number
        if held and (not fits or elements >= most or _form(rows) != _form(held[0])):
            yield _joined(held), held[0].number
            held, elements = [], 0
        held.append(_copied(rows))
        elements += sum(t.numel() for t in _inputs(rows))
    if held:
        yield _joined(held), held[0].number


def _inputs(rows: Rows) -> tuple[Tensor, ...]:
    return rows.x if isinstance(rows.x, tuple) else (rows.x,)


def _form(rows: Rows) -> Any:
    """What rows that are joined have in common."""
    tensors = (*_inputs(rows), rows.y, rows.weight)
    return [None if t is None else (t.shape[1:], t.dtype, t.device) for t in tensors]


def _copied(rows: Rows) -> Rows:
    """A loader may read the next batch into the same memory."""
    x = tuple(t.clone() for t in rows.x) if isinstance(rows.x, tuple) else rows.x.clone()
    return Rows(x, rows.y.clone(), None if rows.weight is None else rows.weight.clone())


def _joined(held: list[Rows]) -> Rows:
    if len(held) == 1:
        return held[0]
    first = held[0]
    x: Inputs
    if isinstance(first.x, tuple):
        x = tuple(torch.cat(each) for each in zip(*(rows.x for rows in held), strict=True))
    else:
        x = torch.cat([rows.x for rows in held])  # type: ignore[misc]
    weights = [rows.weight for rows in held if rows.weight is not None]
    return Rows(x, torch.cat([rows.y for rows in held]), torch.cat(weights) if weights else None)


Data = Rows | Batches | Reader


def in_memory(data: Data) -> Rows | None:
    """All rows; None where they are read."""
    return data.rows if isinstance(data, Batches) else data if isinstance(data, Rows) else None


def data_of(data: Any, batch_size: Any, shuffle: Any, generator: Any, weight: Any) -> Data:
    """What ``fit`` was given, as one of the three."""
    if isinstance(data, DataLoader):
        given = {"batch_size": batch_size, "shuffle": shuffle or None}
        for name, value in {**given, "generator": generator, "weight": weight}.items():
            if value is not None:
                kind = type(value).__name__
                raise ValueError(f"{name}: expected to be the DataLoader's own, got a {kind}")
        return _of_loader(data)
    if type(data) is TensorDataset:  # a subclass may give other rows
        rows = rows_of(data.tensors, weight)
    elif isinstance(data, Dataset):
        if weight is not None:
            raise ValueError(
                "weight: expected as the third element that the dataset gives, got an argument"
            )
        if batch_size is None:
            raise ValueError("batch_size: expected a number of rows with a Dataset, got None")
        return Reader(DataLoader(data, batch_size, shuffle, generator=generator))
    else:
        rows = rows_of(data, weight)
    if batch_size is None:
        for name, value in (("shuffle", shuffle), ("generator", generator)):
            if value:
                raise ValueError(f"{name}: expected with batch_size, got it without")
        return rows
    dataset = TensorDataset(*_by_row(rows))
    return Batches(rows, DataLoader(dataset, batch_size, shuffle, generator=generator))


def _by_row(rows: Rows) -> list[Tensor]:
    """All tensors of the rows, each with a row for every row."""
    named = list(zip(("y", "weight"), (rows.y, rows.weight), strict=True))
    if isinstance(rows.x, tuple):
        named = [(f"x[{i}]", x) for i, x in enumerate(rows.x)] + named
    else:
        named.insert(0, ("x", rows.x))
    for name, tensor in named:
        if tensor is not None and (tensor.dim() == 0 or tensor.shape[0] != rows.number):
            raise ValueError(
                f"{name}: expected {rows.number} rows, as x has, to be taken in batches, "
                f"got shape {tuple(tensor.shape)}"
            )
    return [tensor for _, tensor in named if tensor is not None]


def _of_loader(loader: "DataLoader[Any]") -> Data:
    """In memory where the loader only picks rows of tensors, else to be read."""
    dataset: Any = loader.dataset
    picks = (
        type(loader) is DataLoader
        and type(dataset) is TensorDataset
        and vars(dataset).keys() == {"tensors"}
        and loader.collate_fn is default_collate
        and type(loader.batch_sampler) is BatchSampler
        and loader.batch_sampler.sampler is loader.sampler
        and not loader.persistent_workers
        and len(dataset.tensors) in (2, 3)
    )
    if not picks:
        return Reader(loader)
    rows = rows_of(dataset.tensors)
    _by_row(rows)
    return Batches(rows, loader)
