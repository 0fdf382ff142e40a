"""Where the kernels run: on the host thread by thread, or on a device where there is one."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from . import emulator


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> emulator.Emulator:
    if emulator.compiler() is None:
        pytest.skip("no C++ compiler")
    built = os.environ.get("GDCORE_EMULATOR")
    if built is not None:
        return emulator.Emulator(Path(built))
    return emulator.build(tmp_path_factory.mktemp("emulator"))


@pytest.fixture
def emulated(compiled: emulator.Emulator) -> Iterator[emulator.Emulator]:
    """The kernels on the host, threads and blocks in their order."""
    compiled.launches()  # what is counted from here on is the test's
    yield compiled
    compiled.backwards = False


@pytest.fixture
def on_host(emulated: emulator.Emulator, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`_cuda_ops` with its launches on the host."""
    _cuda_ops = pytest.importorskip("gdcore._native.cuda_ops", reason="built without the CUDA path")
    native = _cuda_ops.native

    def mse(*arguments: Any) -> None:
        emulated.mse(*arguments[:-1])

    def loss(model: Any, x: Tensor, target: Tensor, weight: Tensor | None, *rest: Any) -> None:
        parameters, mean, loss, gradients, dx, _ = rest
        emulated.loss(model.name, (x, target, weight), parameters, mean, loss, gradients, dx)

    def train(model: Any, x: Tensor, target: Tensor, weight: Tensor | None, *rest: Any) -> None:
        parameters, mean, kind, settings, states, first, epochs, stops, *results = rest
        losses, status, previous, records, every, _ = results
        emulated.train(
            *(model.name, (x, target, weight), parameters, mean, kind.name, settings, states),
            *(range(first, first + epochs), losses, status, previous, stops, records, every),
        )

    def legendre_p3(x: Tensor, grad: Tensor | None, out: Tensor) -> None:
        emulated.legendre_p3(x, grad, out)

    names = {name: getattr(native, name) for name in dir(native) if not name.startswith("__")}
    calls = {"mse": mse, "scale": emulated.scale, "loss": loss, "train": train}
    calls["legendre_p3"] = legendre_p3
    monkeypatch.setattr(_cuda_ops, "native", SimpleNamespace(**{**names, **calls}))
    return _cuda_ops


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
