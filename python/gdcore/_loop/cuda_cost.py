"""What training costs with tensors on CUDA: the model of `gdcore._loop.cost`, with a device.

With n rows of q features and k outputs, m steps an epoch (1, or the batches), s bytes a number:

- *stepwise*, the full batch of what one block holds: an epoch costs block_step + n (q + k) /
  block_elements; else, and for minibatches, an epoch costs m l · launch + n (q + k) s / bandwidth
  for l launches a step, for minibatches that bandwidth twice more (the rows are gathered once);
- *compressed*: preparing costs factorising + 2 n (q + k)² / qr_flops, of few rows what it costs
  on the CPU; an epoch runs on the CPU and costs what it costs there, over min(n, q + k) rows;
- *eager*: an epoch costs m · eager_step + 6 n (q + 2 k) s / bandwidth.

The constants are what data sheets and launch latencies of data centres' devices suggest: they have
not been measured.
"""

import torch

from .._native.factor import WORK_ON_CPU
from .cost import Cost, Costs, compressed_epoch, factorisation

__all__ = ["choose"]

LAUNCH = 5e-6
"""Seconds of a launch after another."""
BLOCK_STEP = 4e-6
"""Seconds of an epoch within a launch, rows aside."""
BLOCK_ELEMENTS = 2e10
"""Elements a second that one block goes through."""
BANDWIDTH = 2.5e12
"""Bytes a second of the device's memory."""
LAUNCHING = 300e-6
"""Seconds to set a loop up, and to wait for its end."""
FACTORISING = 1e-3
"""Seconds for the smallest factorisation on a device, on its way to the CPU."""
QR_FLOPS = 5e11
"""Floating-point operations a second of a tall QR in float64."""
EAGER_STEP = 500e-6
"""Seconds for the smallest eager step: its launches."""


def choose(
    rows: int,
    columns: int,
    outputs: int,
    epochs: int,
    batch_size: int | None,
    dtype: torch.dtype,
    *,
    launches: int,
) -> Costs:
    """Every way's cost on CUDA, for an affine model: as `gdcore._loop.cost.choose`, with a device.

    Args:
        launches: of a step; 0 where one launch makes many epochs of the full batch.

    Example:
        >>> from gdcore._loop.cuda_cost import choose
        >>> choose(3, 2, 1, 2000, None, torch.float32, launches=0).method
        'compressed'
        >>> choose(10_000_000, 65, 1, 10, None, torch.float32, launches=2).method
        'stepwise'
    """
    full = batch_size is None or batch_size >= rows
    steps = 1 if full else -(-rows // max(batch_size or 1, 1))
    elements = rows * (columns + outputs)
    passing = elements * dtype.itemsize / BANDWIDTH
    if full and launches == 0:
        step = BLOCK_STEP + elements / BLOCK_ELEMENTS
    else:
        step = steps * launches * LAUNCH + (passing if full else 3 * passing)
    eager = steps * EAGER_STEP + 6 * (passing + rows * outputs * dtype.itemsize / BANDWIDTH)
    compressed = None
    if full and dtype in (torch.float32, torch.float64):
        work = 2 * rows * (columns + outputs) ** 2
        epoch = compressed_epoch(rows, columns, outputs)
        if work <= WORK_ON_CPU:
            prepare = LAUNCHING + factorisation(rows, columns + outputs)
        else:
            prepare = LAUNCHING + FACTORISING + work / QR_FLOPS
        compressed = Cost(prepare, epoch)
    return Costs(Cost(LAUNCHING, step), compressed, Cost(0.0, eager), epochs)
