"""A device, and whether anybody waits for it."""

import contextlib
import warnings
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    """A device; whatever a test has put on it is done and gone at its end."""
    yield torch.device("cuda", torch.cuda.current_device())
    torch.cuda.synchronize()


def _sync_debug_mode(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is a prototype, says torch
        torch.cuda.set_sync_debug_mode(name)


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """An error wherever torch waits for the device."""
    torch.cuda.synchronize()
    _sync_debug_mode("error")
    try:
        yield
    finally:
        _sync_debug_mode("default")
