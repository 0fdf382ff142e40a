"""Read bandwidth, what part of it a case reaches, and when memory matters to it at all."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from timing import FULL, QUICK, Measured, Row, Spread, interleave

MEBIBYTE = 2**20
CACHE_IF_UNKNOWN = 64 * MEBIBYTE


@functools.cache
def last_level_cache() -> int | None:
    """Bytes of the largest cache that the kernel tells of."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    found = [int(size.read_text().strip().removesuffix("K")) * 1024 for size in sizes]
    return max(found, default=None)


def past_cache(working_set: int) -> bool:
    """Whether a working set that is passed over again and again must come from memory each time.

    One a little larger than the cache still finds a part of itself there.
    """
    return working_set >= 2 * (last_level_cache() or CACHE_IF_UNKNOWN)


def read_bandwidth(quick: bool) -> dict[str, Any]:
    """Bytes per second of ``torch.sum`` over a float32 array far larger than the caches.

    The sum runs on all of torch's threads. Of the median rate of each size, the best is taken:
    it is the machine's, since a sum does nothing but read.
    """
    least = max(256 * MEBIBYTE, 4 * (last_level_cache() or CACHE_IF_UNKNOWN))
    sizes = [least] if quick else [least, 2 * least]
    effort = replace(QUICK if quick else FULL, least_rounds=5, most_rounds=15)
    runs = [functools.partial(torch.sum, torch.ones(size // 4)) for size in sizes]
    samples, _ = interleave(runs, effort)
    rates = [
        Spread.of([size / second for second in taken])
        for size, taken in zip(sizes, samples, strict=True)
    ]
    return {
        "bytes_per_second": max(rate.median for rate in rates),
        "sizes": [
            {"bytes": size, **rate._asdict()} for size, rate in zip(sizes, rates, strict=True)
        ],
    }


def share_of_bandwidth(measured: Measured, row: Row, bandwidth: float) -> float | None:
    """What part of the read bandwidth a row reaches, or None where its working set fits the cache.

    The bandwidth is that of the plain sum in the row's own rounds, round by round as for every
    ratio, so that what disturbs the machine cancels; the run's where no sum was timed beside it.
    """
    if measured.read_bytes is None or not past_cache(measured.read_bytes):
        return None
    if row.share is not None:
        return row.share.median
    return measured.read_bytes / row.seconds.median / bandwidth
