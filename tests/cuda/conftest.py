"""Where the kernels run: on the host thread by thread, or on a device where there is one."""

from collections.abc import Iterator

import pytest
import torch

from . import emulator


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> emulator.Emulator:
    if emulator.compiler() is None:
        pytest.skip("no C++ compiler")
    return emulator.build(tmp_path_factory.mktemp("emulator"))


@pytest.fixture
def emulated(compiled: emulator.Emulator) -> Iterator[emulator.Emulator]:
    """The kernels on the host, threads and blocks in their order."""
    yield compiled
    compiled.backwards = False


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    """A device; whatever a test has put on it is done and gone at its end."""
    yield torch.device("cuda", torch.cuda.current_device())
    torch.cuda.synchronize()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = None
    if not torch.cuda.is_available():
        reason = "no CUDA device"
    else:
        from gdcore import build_info

        if not build_info()["cuda"]["built"]:
            reason = "gdcore was built without CUDA"
    for item in items:
        if reason is not None and item.get_closest_marker("cuda") is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
