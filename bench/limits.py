"""The machine's limits: the most that it can read, copy and multiply in a second.

A case quotes the limit that bounds it, which is then timed in the same rounds, in turns with the
contenders; so what disturbs the machine cancels in the share. Those within a core come from
`limits.c`, compiled when first asked for; without a C compiler they are missing.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from case import Limit
from timing import Effort, Spread, interleave

MEBIBYTE = 2**20
CACHE_IF_UNKNOWN = 64 * MEBIBYTE
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC")

# Below this a step stays on the calling thread: `kSerialElements` in csrc/training/objective.h.
SERIAL_ELEMENTS = 2**17

READ, COPY, CACHED, RANDOM_ROWS = "read", "copy", "read in cache", "random rows"
MULTIPLY_ADD, PRODUCT = "multiply-adds", "torch.mm"


@functools.cache
def last_level_cache() -> int | None:
    """Bytes of the largest cache that the kernel tells of."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    found = [int(size.read_text().strip().removesuffix("K")) * 1024 for size in sizes]
    return max(found, default=None)


def past_cache(working_set: float) -> bool:
    """Whether a working set that is passed over again and again must come from memory each time.

    One a little larger than the cache still finds a part of itself there.
    """
    return working_set >= 2 * (last_level_cache() or CACHE_IF_UNKNOWN)


@functools.cache
def library() -> ctypes.CDLL | None:
    """`limits.c`, compiled for this processor; None where nothing compiles it."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "limits.so"
        source = Path(__file__).with_name("limits.c")
        command = [*compiler.split(), *FLAGS, "-o", str(built), str(source)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return None
        found = ctypes.CDLL(str(built))
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    found.multiply_adds.argtypes, found.multiply_adds.restype = [integer, pointer], integer
    found.plain_sum.argtypes = [pointer, integer, integer]
    found.plain_sum.restype = ctypes.c_float
    found.row_sums.argtypes = [pointer, pointer, integer, integer]
    found.row_sums.restype = ctypes.c_float
    return found


def read(size: float) -> Limit:
    """A plain sum by ``torch.sum`` of so many bytes of float32, on all of torch's threads."""
    values = torch.ones(max(1, round(size / 4)))
    return Limit(READ, "B", 4 * values.numel(), functools.partial(torch.sum, values))


def copy(size: float) -> Limit:
    """``copy_`` of so many bytes: they are read, and written where they have to be fetched first.

    All three are counted, as an update's are, which writes what it has read.
    """
    source = torch.ones(max(1, round(size / 4)))
    target = torch.ones_like(source)
    return Limit(COPY, "B", 12 * source.numel(), functools.partial(target.copy_, source))


def multiply_adds() -> Limit | None:
    """Of one core, in registers, in as many chains as hide the latency."""
    compiled = library()
    if compiled is None:
        return None
    out = ctypes.c_float()
    run = functools.partial(compiled.multiply_adds, 20_000, ctypes.byref(out))
    return Limit(MULTIPLY_ADD, "FMA", run(), run)


def cached_read(size: float) -> Limit | None:
    """A plain sum on one core of so many bytes, which a cache is to hold."""
    compiled = library()
    if compiled is None:
        return None
    values = torch.ones(max(1, round(size / 4)))
    times = max(1, MEBIBYTE // values.numel())
    # The partial holds the tensor beside its address.
    run = functools.partial(_sum_of, compiled, values, times)
    return Limit(CACHED, "B", 4 * values.numel() * times, run)


def reading(size: float) -> Limit | None:
    """Of so many bytes again and again: by the cores that a step over as many takes.

    A sum by torch begins with more than a small one takes, so up to 4 MiB it is one core's sum of
    its part, as if all cores had done that at once.
    """
    if size >= 4 * MEBIBYTE:
        return read(size)
    cores = cores_for(size / 4)
    one = cached_read(size / cores)
    return one if one is None else replace(one, amount=one.amount * cores)


def cores_for(elements: float) -> int:
    """How many of them a step takes that reads so many elements."""
    return torch.get_num_threads() if elements >= SERIAL_ELEMENTS else 1


def _sum_of(compiled: ctypes.CDLL, values: Tensor, times: int) -> float:
    found: float = compiled.plain_sum(values.data_ptr(), values.numel(), times)
    return found


def random_rows(x: Tensor) -> Limit | None:
    """The sums of the rows of a contiguous float32 matrix, in a random order, on one core."""
    compiled = library()
    if compiled is None:
        return None
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))

    def run() -> float:
        found: float = compiled.row_sums(x.data_ptr(), order.data_ptr(), *x.shape)
        return found

    return Limit(RANDOM_ROWS, "B", x.numel() * x.element_size(), run)


def products(x: Tensor, outputs: int) -> Limit:
    """The two matrix products of a step by ``torch.mm`` into given memory: x · w, and rᵀ · x or its
    transpose, whichever is faster here."""
    n, d = x.shape
    weight, residual = torch.ones(d, outputs), torch.ones(n, outputs)
    prediction, gradient = torch.empty(n, outputs), torch.empty(outputs, d)
    transposed = torch.empty(d, outputs)
    forms = [
        functools.partial(torch.mm, residual.T, x, out=gradient),
        functools.partial(torch.mm, x.T, residual, out=transposed),
    ]
    samples, _ = interleave(forms, Effort(0.0, 0.0, 5, 5))
    form = forms[min(range(len(forms)), key=lambda i: min(samples[i]))]

    def run() -> None:
        torch.mm(x, weight, out=prediction)
        form()

    return Limit(PRODUCT, "FMA", 2 * n * d * outputs, run)


def past_cache_size() -> int:
    """Bytes that are read from memory each time, and hardly at all from the caches."""
    return max(256 * MEBIBYTE, 4 * (last_level_cache() or CACHE_IF_UNKNOWN))


def of_machine() -> list[Limit]:
    """All limits that do not depend on a case, the data far past the caches or well inside one."""
    rows = torch.ones(past_cache_size() // 64, 16)
    found = [
        read(past_cache_size()),
        copy(past_cache_size() // 2),
        cached_read(MEBIBYTE // 4),
        multiply_adds(),
        random_rows(rows),
        products(torch.ones(512, 512), 512),
    ]
    return [limit for limit in found if limit is not None]


class Rate(NamedTuple):
    """A limit as it was measured: its unit in a second, by round."""

    limit: Limit
    samples: Sequence[float]


def measure_machine(effort: Effort) -> list[Rate]:
    """Each limit with its rate, measured in turns."""
    limits = of_machine()
    short = replace(effort, least_rounds=5, most_rounds=9)
    samples, _ = interleave([limit.run for limit in limits], short)
    return [
        Rate(limit, [limit.amount / seconds for seconds in taken])
        for limit, taken in zip(limits, samples, strict=True)
    ]


def rates_text(rates: Sequence[Rate]) -> list[str]:
    """One line for each limit: median and quartiles."""
    lines = []
    for limit, samples in rates:
        median, q25, q75 = (rate / 1e9 for rate in Spread.of(samples))
        lines.append(f"{limit.name}: {median:.1f} G{limit.unit}/s ({q25:.1f} to {q75:.1f})")
    return lines
