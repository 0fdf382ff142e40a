"""Counts of rows at which a kernel's loops change: lanes and chunks."""

import torch

LANES = {torch.float32: 16, torch.float64: 8}


def rows_per_chunk(elements_per_row: int, parameters: int = 0, rows: int = 0) -> int:
    """What csrc/training/objective.cpp cuts rows into; test_determinism.py shows that it does."""
    elements = max(elements_per_row, 1)
    by_work = min(max(2**16 // elements, min(256, 2**18 // elements), 64), 4096)
    most_chunks = min(max(2**21 // (parameters + 1), 4), 256)
    by_memory = -(-rows // most_chunks)
    return -(-max(by_work, by_memory) // 64) * 64


def around_lanes(dtype: torch.dtype) -> list[int]:
    lanes = LANES[dtype]
    return [1, lanes - 1, lanes, lanes + 1, 2 * lanes + 1]


def around_a_chunk(elements_per_row: int) -> list[int]:
    chunk = rows_per_chunk(elements_per_row)
    return [chunk - 1, chunk, chunk + 1]
