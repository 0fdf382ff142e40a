"""What steps over the rows on a device of the tests."""

from typing import Any

import pytest
import torch

from gdcore._native.runners import StepwiseRunner


@pytest.fixture
def on_device(request: pytest.FixtureRequest, device: torch.device) -> bool:
    """Whether it is CUDA's kernels that are at work, on the host or on a device."""
    return bool(request.node.callspec.params["device"] != "cpu")


@pytest.fixture
def stepwise(on_device: bool) -> Any:
    """The runner, to be made of a problem and an optimizer."""
    if not on_device:
        return StepwiseRunner
    module = pytest.importorskip("gdcore._native.cuda_runner", reason="built without CUDA")
    return module.CudaRunner
