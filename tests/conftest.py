"""Fixtures that the tests share."""

import signal
from collections.abc import Callable, Iterator

import pytest
import torch

from gdcore import _ops

from .devices import (
    compiled,
    device,
    device_of_updates,
    emulated,
    losses_on_host,
    on_host,
    pretended,
)

# Fixtures, for every test that asks.
__all__ = [
    "compiled",
    "device",
    "device_of_updates",
    "emulated",
    "losses_on_host",
    "on_host",
    "pretended",
]


@pytest.fixture(params=_ops.built_instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set of the build in turn, forced while the test runs."""
    name: str = request.param
    if name not in _ops.available_instruction_sets():
        pytest.skip("not executable on this processor")
    before = _ops.active_instruction_set()
    _ops.choose_instruction_set(name)
    yield name
    _ops.choose_instruction_set(before)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Both dtypes of the kernels in turn."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """``torch.set_num_threads``, undone at the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def pytest_configure() -> None:
    """A shell's background jobs ignore Ctrl-C, and so would the processes that tests interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a device is skipped, with the reason, where there is none or it is not used."""
    reason = None
    if not torch.cuda.is_available():
        reason = "no CUDA device"
    elif _ops.cuda is None:
        reason = "gdcore was built without CUDA"
    for item in items:
        if reason is not None and item.get_closest_marker("cuda") is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
