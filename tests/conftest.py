"""Fixtures that the tests share."""

from collections.abc import Callable, Iterator

import pytest
import torch

from gdcore import _ops


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
