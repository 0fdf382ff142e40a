"""The triangular factor of a matrix that is read by blocks of rows, in float64.

The rows are taken in lanes, each a chain of blocks: a block is stacked under the last R, and
factorised again. The lanes' factors are stacked and factorised in the end. Lanes and blocks depend
on the shapes alone, and each lane has one thread, so that the bits do not depend on the threads.
A kernel of gdcore's factorises, which reads the columns where they lie; LAPACK where there are too
many for its caches, and on a device.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _ops

__all__ = ["Block", "Columns", "Rows", "threads_for", "triangle"]

Columns = tuple[Tensor | None, ...]
"""What stands side by side in a matrix, of float32 or float64; None for a column of ones."""


class Block(NamedTuple):
    """Rows of a matrix, with weights whose roots they are multiplied by."""

    columns: Columns
    weight: Tensor | None = None
    """(rows,), or None."""

    def matrix(self) -> Tensor:
        """In float64."""
        first = next(part for part in self.columns if part is not None)
        parts = [first.new_ones(len(first), 1) if one is None else one for one in self.columns]
        # Numbers of float32 are joined as they are: in float64 they are the same.
        joined = torch.cat(parts, 1).double()
        return joined if self.weight is None else joined * self.weight.double().sqrt().unsqueeze(1)


Rows = Callable[[int, int], Block]
"""Rows [start, stop) of a matrix."""

_BLOCK_ELEMENTS = 2**18
_DEVICE_BLOCK_ELEMENTS = 2**24
_LANES = 4
_MEMORY_ELEMENTS = 2**23
"""What all lanes' blocks may hold: 64 MB."""
_COPIES = 4
"""Of a block, while it is factorised."""

_NARROW = 512
"""Columns up to which LAPACK takes longer than the kernel."""
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


def _stacked(factor: Tensor | None, rows: Block) -> Tensor:
    """R of some rows under another R, which is not used again."""
    matrix = rows.matrix()
    return _r(matrix if factor is None else torch.cat((factor, matrix)))


def _folded(factor: Tensor | None, rows: Block) -> Tensor:
    """The same by the kernel: as many rows as columns, whatever was there."""
    columns = tuple(None if part is None else part.resolve_neg() for part in rows.columns)
    if factor is None:
        width = sum(1 if part is None else part.shape[1] for part in columns)
        factor = torch.zeros(width, width, dtype=torch.float64, device="cpu")
    _ops.triangle(columns, None if rows.weight is None else rows.weight.resolve_neg(), factor)
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
    least = -(-columns // height)
    if device is not None and device.type != "cpu":
        # It factorises large blocks best, and in its current stream: in this thread.
        block = max(_DEVICE_BLOCK_ELEMENTS // (columns * height), least)
        return _chain(rows, 0, count, block, _stacked)
    block = max(_BLOCK_ELEMENTS // (columns * height), least)
    each = _COPIES * (block * height + columns) * columns
    lanes = max(min(_LANES, _MEMORY_ELEMENTS // each, -(-count // block)), 1)
    by_kernel = columns <= _NARROW and count >= least
    stack = _folded if by_kernel else _stacked
    if lanes == 1:
        with contextlib.nullcontext() if by_kernel else _single_threaded():
            return _chain(rows, 0, count, block, stack)
    stopped = threading.Event()

    def lane(number: int) -> Tensor:
        start, stop = number * count // lanes, (number + 1) * count // lanes
        return _chain(rows, start, stop, block, stack, stopped)

    with _single_threaded() as threads:
        factors = _at_once(lane, lanes, min(threads, lanes), stopped)
        return stack(None, Block((torch.cat(factors),)))


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
    rows: Rows,
    start: int,
    stop: int,
    block: int,
    stack: Callable[[Tensor | None, Block], Tensor],
    stopped: threading.Event | None = None,
) -> Tensor:
    """R of rows [start, stop), each block of them stacked under the last R."""
    factor = None
    for first in range(start, stop, block):
        factor = stack(factor, rows(first, min(first + block, stop)))
        if stopped is not None and stopped.is_set():
            break
    assert factor is not None
    return factor
