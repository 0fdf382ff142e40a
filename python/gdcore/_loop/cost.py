"""What each way of training costs: a function of shapes, epochs and dtype only.

With n rows of q features and k outputs, m steps an epoch (1, or the batches), s bytes a number:

- a native pass over n rows takes P(n, q, k, s) = max(4 n q k / flops(s), n (q + k) s / bandwidth):
  two multiply-adds for each feature and output, and one pass over what is not in the cache;
- *stepwise*: an epoch costs m · native_step + P(n, q, k, s), for minibatches n (q + k) s / gather
  more;
- *compressed* (full batch): preparing costs F(n, q + k) = factorising + n (q + k) / qr_elements
  + 2 n (q + k)² / qr_flops; an epoch costs native_step + P(min(n, q + k), q, k, 8), whatever n;
- *eager*: an epoch costs m · eager_step + n (q + 2 k) s / eager_bandwidth, for minibatches
  n · loader_row more.

A fit costs what preparing does, and epochs times an epoch. The constants were measured on two cores
with AVX2; choices hang on their ratios, which differ less between machines than they do.
"""

from typing import NamedTuple

import torch

__all__ = ["Cost", "Costs", "choose", "compressed_epoch", "factorisation"]

NATIVE_STEP = 35e-9
"""Seconds for the smallest native step, update and history included."""
FLOPS = {4: 25e9, 8: 12e9}
"""Native floating-point operations a second, by bytes a number."""
BANDWIDTH = 21e9
"""Bytes a second that a native pass reads."""
CACHE = 2**20
"""Bytes that stay near the processor from one epoch to the next."""
GATHER = 8e9
"""Bytes a second where rows are read in a random order."""
PLANNING = 30e-6
"""Seconds to set any native loop up."""
FACTORISING = 150e-6
"""Seconds for the Python around a factorisation."""
QR_ELEMENTS = 1e9
"""Elements a second that are brought to a factorisation in float64."""
QR_FLOPS = 40e9
"""Floating-point operations a second of a QR factorisation in float64."""
EAGER_STEP = 250e-6
"""Seconds for the smallest eager step: forward, backward, update."""
EAGER_BANDWIDTH = 3.2e9
"""Bytes of the data a second in an eager step, with all its passes."""
LOADER_ROW = 5e-6
"""Seconds a row that a DataLoader collates."""


class Cost(NamedTuple):
    """Seconds to prepare, and for each epoch."""

    prepare: float
    epoch: float

    def total(self, epochs: int) -> float:
        return self.prepare + epochs * self.epoch


class Costs(NamedTuple):
    """What each way costs; None where it is not open."""

    stepwise: Cost | None
    compressed: Cost | None
    eager: Cost
    epochs: int

    def total(self, method: str) -> float:
        cost = getattr(self, method)
        return float("inf") if cost is None else float(cost.total(self.epochs))

    @property
    def method(self) -> str:
        """The native way that costs least; the one that follows PyTorch's rounding where equal."""
        return min(("stepwise", "compressed"), key=self.total)


def _pass(rows: int, columns: int, outputs: int, size: int) -> float:
    data = rows * (columns + outputs) * size
    memory = data / BANDWIDTH if data > CACHE else 0.0
    return max(4 * rows * columns * outputs / FLOPS[size], memory)


def factorisation(rows: int, columns: int) -> float:
    """Seconds to make so many rows few."""
    return FACTORISING + rows * columns / QR_ELEMENTS + 2 * rows * columns**2 / QR_FLOPS


def compressed_epoch(rows: int, columns: int, outputs: int) -> float:
    """Seconds of an epoch over what rows compress to."""
    return NATIVE_STEP + _pass(min(rows, columns + outputs), columns, outputs, 8)


def choose(
    rows: int,
    columns: int,
    outputs: int,
    epochs: int,
    batch_size: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Costs:
    """The cost of every way to train an affine model.

    Args:
        rows: of the features.
        columns: of the features, a constant one included.
        outputs: numbers predicted for a row.
        epochs: how many.
        batch_size: rows of a minibatch, or None for all of them.
        dtype: the parameters', float32 or float64.

    Returns:
        The `Costs`, whose ``method`` is the cheapest.

    Example:
        >>> from gdcore._loop.cost import choose
        >>> choose(100_000, 65, 1, epochs=1000).method, choose(100_000, 65, 1, epochs=20).method
        ('compressed', 'stepwise')
    """
    size = dtype.itemsize
    full = batch_size is None or batch_size >= rows
    steps = 1 if full else -(-rows // max(batch_size or 1, 1))
    data = rows * (columns + outputs) * size
    step = steps * NATIVE_STEP + _pass(rows, columns, outputs, size)
    eager = steps * EAGER_STEP + (data + rows * outputs * size) / EAGER_BANDWIDTH
    if not full:
        step += data / GATHER
        eager += rows * LOADER_ROW
    compressed = None
    if full:
        compressed = Cost(
            PLANNING + factorisation(rows, columns + outputs),
            compressed_epoch(rows, columns, outputs),
        )
    return Costs(Cost(PLANNING, step), compressed, Cost(0.0, eager), epochs)
