"""Few rows in place of many: the triangular factor of features and targets, in float64.

For every θ, ``‖Φ θ - y‖² = ‖R (θ, -1)‖²`` with ``[Φ | y] = Q R`` and Q's columns orthonormal. The
rows are taken in lanes, each a chain of blocks: a block is stacked under the last R, and factorised
again. The lanes' factors are stacked and factorised in the end. Lanes and blocks depend on the
shapes alone, and LAPACK gets one thread for each, so that the bits do not depend on the threads.
"""

import contextlib
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor

from .problem import Problem

__all__ = ["Rows", "compressed", "features", "singular_values", "threads_for", "triangle"]

Rows = Callable[[int, int], Tensor]
"""Rows [start, stop) of a matrix, in float64."""
Columns = Callable[[int, int], tuple[Tensor, ...]]
"""Rows [start, stop) of the parts of a matrix that stand side by side, in any dtype."""

_BLOCK_ELEMENTS = 3 * 2**16
_DEVICE_BLOCK_ELEMENTS = 2**24
_LANES = 4
_MEMORY_ELEMENTS = 2**23
"""What all lanes' blocks may hold: 64 MB."""
_COPIES = 4
"""Of a block, while it is factorised."""

_SMALL = 512
"""Columns up to which a second thread of LAPACK's gains little, and waits long for a busy core."""

_one_at_a_time = threading.Lock()
_workers: ThreadPoolExecutor | None = None
"""Kept. A thread that ends gives its buffers back to MKL, long after it was joined and under a lock
of MKL's: a child of a fork in the middle of that would find the lock taken for ever.
"""


def _begin_child() -> None:
    global _one_at_a_time, _workers
    _one_at_a_time, _workers = threading.Lock(), None


os.register_at_fork(after_in_child=_begin_child)


@contextlib.contextmanager
def _single_threaded() -> Iterator[int]:
    """LAPACK with one thread; how many there were before."""
    with _one_at_a_time:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield threads
        finally:
            torch.set_num_threads(threads)


def threads_for(matrix: Tensor) -> contextlib.AbstractContextManager[object]:
    """While a matrix is factorised: LAPACK with one thread for a small one, with all for others."""
    return _single_threaded() if matrix.shape[-1] <= _SMALL else contextlib.nullcontext()


def _r(matrix: Tensor) -> Tensor:
    factor: Tensor = torch.linalg.qr(matrix, mode="r").R
    return factor


def triangle(
    rows: Rows, count: int, columns: int, height: int = 1, device: torch.device | None = None
) -> Tensor:
    """R of the QR factorisation of a matrix that is read by blocks of rows.

    Args:
        rows: reads them.
        count: how many there are.
        columns: how many each has.
        height: rows of the matrix that ``rows`` gives for each of them.
        device: where they are, and the result; None for the CPU.

    Returns:
        (min(count · height, columns), columns) in float64. What is not finite in the rows makes it
        not finite.
    """
    if device is not None and device.type != "cpu":
        # It factorises large blocks best, and in its current stream: in this thread.
        block = max(_DEVICE_BLOCK_ELEMENTS // (columns * height), -(-columns // height))
        return _chain(rows, 0, count, block)
    block = max(_BLOCK_ELEMENTS // (columns * height), -(-columns // height))
    each = _COPIES * (block * height + columns) * columns
    lanes = max(min(_LANES, _MEMORY_ELEMENTS // each, -(-count // block)), 1)
    if lanes == 1:
        with _single_threaded():
            return _chain(rows, 0, count, block)
    stopped = threading.Event()

    def lane(number: int) -> Tensor:
        start, stop = number * count // lanes, (number + 1) * count // lanes
        return _chain(rows, start, stop, block, stopped)

    with _single_threaded() as threads:
        return _r(torch.cat(_at_once(lane, lanes, min(threads, lanes), stopped)))


def _at_once(
    lane: Callable[[int], Tensor], lanes: int, threads: int, stopped: threading.Event
) -> list[Tensor]:
    """What the lanes give, computed by so many threads with one of LAPACK's each."""
    global _workers
    left, factors = deque(range(lanes)), {}

    def work() -> None:
        torch.set_num_threads(1)
        while True:
            try:
                number = left.popleft()
            except IndexError:
                return
            factors[number] = lane(number)

    if _workers is None:
        _workers = ThreadPoolExecutor(_LANES, "qr")
    working: list[Future[None]] = []
    try:
        for _ in range(threads):
            working.append(_workers.submit(work))
        for future in working:
            future.result()
    except BaseException:  # Ctrl-C: after the blocks that are being factorised
        stopped.set()
        left.clear()
        raise
    finally:
        wait(working)
    return [factors[number] for number in range(lanes)]


def _chain(
    rows: Rows, start: int, stop: int, block: int, stopped: threading.Event | None = None
) -> Tensor:
    """R of rows [start, stop), each block of them stacked under the last R."""
    factor = None
    for first in range(start, stop, block):
        part = rows(first, min(first + block, stop))
        factor = _r(part if factor is None else torch.cat((factor, part)))
        if stopped is not None and stopped.is_set():
            break
    assert factor is not None
    return factor


def features(problem: Problem) -> tuple[Columns, Tensor]:
    """Φ of a problem whose prediction is linear in its parameters, and where each column counts.

    Returns:
        The columns of rows of Φ (n, q), and the index (k, q) of an indexed problem.

    Raises:
        ValueError: the prediction is not linear in the parameters.
    """
    x = problem.x
    if problem.kernel == "indexed":
        assert problem.index is not None
        return lambda start, stop: (x[start:stop],), problem.index
    if problem.kernel == "polynomial":
        size = problem.parameters[0].numel()
        return (
            lambda start, stop: (torch.vander(x[start:stop].double(), size, increasing=True),),
            torch.arange(size, device="cpu").unsqueeze(0),
        )
    if problem.kernel != "linear":
        raise ValueError(
            "method: expected a model that is affine in its parameters for 'compressed', got "
            f"the kernel {problem.kernel}"
        )
    outputs, columns = problem.parameters[0].shape
    if len(problem.parameters) == 1:
        return lambda start, stop: (x[start:stop],), _places(outputs, columns)

    def with_ones(start: int, stop: int) -> tuple[Tensor, ...]:
        return x[start:stop], x.new_ones(stop - start, 1)

    if outputs == 1:
        return with_ones, _places(1, columns + 1)
    weights = _places(outputs, columns)
    return with_ones, torch.cat((weights, _places(outputs, 1) + outputs * columns), 1)


def _places(outputs: int, columns: int) -> Tensor:
    return torch.arange(outputs * columns, device="cpu").reshape(outputs, columns)


def compressed(problem: Problem) -> Problem:
    """The same loss, as a sum over min(n, q + k) rows in float64 on the CPU, of an indexed model.

    With weights that differ between the outputs, every output has rows and columns of its own.
    """
    columns_of, index = features(problem)
    n, outputs = problem.x.shape[0], len(index)
    y = problem.y.reshape(n, outputs)
    weight = None if problem.weight is None else problem.weight.reshape(n, outputs)
    if weight is not None and not (weight >= 0).all():
        raise ValueError("weight: expected none that is negative for 'compressed', got some")
    parts: list[tuple[Tensor, Tensor | None]]
    if weight is not None and outputs > 1 and bool((weight[:, :1] != weight).any()):
        parts = [(y[:, o : o + 1], weight[:, o : o + 1]) for o in range(outputs)]
    else:
        parts = [(y, weight)]
    columns = index.shape[1]
    factors = []
    for targets, weights in parts:

        def augmented(start: int, stop: int, t: Tensor = targets, w: Any = weights) -> Tensor:
            # Numbers of float32 are joined as they are: in float64 they are the same.
            part = torch.cat((*columns_of(start, stop), t[start:stop]), 1).double()
            return part if w is None else part * w[start:stop, :1].double().sqrt()

        width = columns + targets.shape[1]
        factors.append(
            augmented(0, n) if n <= width else triangle(augmented, n, width, device=y.device)
        )
    divisor = 1.0
    if problem.mean:
        divisor = float(n * outputs)
        if weight is not None:
            divisor = weight.sum(dtype=torch.float64).item()
    scale = 1 / math.sqrt(divisor) if divisor else math.nan
    rows = factors[0]
    if len(factors) > 1:
        small = torch.block_diag(*(factor[:, :columns] for factor in factors))
        rows = torch.cat((small, torch.cat([factor[:, columns:] for factor in factors])), 1)
        index = index.reshape(1, -1)
    columns = index.shape[1]
    if rows.numel() and not math.isfinite(torch.linalg.vector_norm(rows, math.inf)):
        # LAPACK says nothing of which is not finite: nor does the loss.
        scale = math.nan
    x, y = rows.mul_(scale).cpu().contiguous().split((columns, rows.shape[1] - columns), 1)
    return problem._replace(
        kernel="indexed",
        x=x,
        y=y,
        weight=None,
        mean=False,
        flat=False,
        index=index.cpu(),
    )


def singular_values(matrix: Tensor) -> Tensor:
    """In descending order."""
    with threads_for(matrix):
        values: Tensor = torch.linalg.svdvals(matrix)
    return values
