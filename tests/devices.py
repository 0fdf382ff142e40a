"""Where a test's tensors are: on the CPU, there with the CUDA kernels at work, or on a CUDA device.

A test that asks for `device` is run for each. Its tensors are made without naming a device, and its
generators are the CPU's: what they make says ``device="cpu"`` and is moved.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gdcore import _modes, _ops
from gdcore._loop import choice
from gdcore._loop.native_model import Recognised
from gdcore._recognition.models import NativeModel

from .cuda import emulator

CUDA = pytest.param("cuda", marks=pytest.mark.cuda)
DEVICES = ["cpu", "emulated", CUDA]


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
        parameters, index, mean, kind, settings, states, first, epochs, stops, *results = rest
        losses, status, previous, records, every, clip, norms, _ = results
        emulated.train(
            *(model.name, (x, target, weight), parameters, mean, kind.name, settings, states),
            *(range(first, first + epochs), losses, status, previous, stops, records, every),
            *(clip, norms, index),
        )

    def legendre_p3(x: Tensor, grad: Tensor | None, out: Tensor) -> None:
        emulated.legendre_p3(x, grad, out)

    names = {name: getattr(native, name) for name in dir(native) if not name.startswith("__")}
    calls = {"mse": mse, "scale": emulated.scale, "loss": loss, "train": train}
    calls["legendre_p3"] = legendre_p3
    monkeypatch.setattr(_cuda_ops, "native", SimpleNamespace(**{**names, **calls}))
    return _cuda_ops


@pytest.fixture
def pretended(on_host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU tensors pass for CUDA's where the way of a fit or a step is chosen."""
    device = torch.device("cuda", 0)
    monkeypatch.setattr(Recognised, "device", property(lambda self: device))
    monkeypatch.setattr(NativeModel, "on_cuda", property(lambda self: True))
    monkeypatch.setattr(choice, "_check_device", lambda *_: None)


@pytest.fixture
def losses_on_host(on_host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses, but where a program is traced or transformed."""

    def either(own: Callable[..., Any], op: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if _modes.traced() or _modes.transformed() or _modes.watched():
                return op(*arguments)
            return own(*(a.resolve_neg() if isinstance(a, Tensor) else a for a in arguments))

        return call

    for name, (native, op) in list(_ops._implementations.items()):
        own = getattr(on_host, native.__name__)
        monkeypatch.setitem(_ops._implementations, name, (own, either(own, op)))


@contextlib.contextmanager
def _at(name: str) -> Iterator[torch.device]:
    """New tensors are there."""
    if name != "cuda":
        yield torch.device("cpu")
        return
    device = torch.device("cuda", torch.cuda.current_device())
    with device:
        yield device
    torch.cuda.synchronize()


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Losses, fits and steps there."""
    if request.param == "emulated":
        request.getfixturevalue("losses_on_host")
        request.getfixturevalue("pretended")
    with _at(request.param) as there:
        yield there


@pytest.fixture(params=DEVICES)
def device_of_updates(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Optimizers there."""
    with contextlib.ExitStack() as stack:
        if request.param == "emulated":
            stack.enter_context(request.getfixturevalue("emulated").device())
        yield stack.enter_context(_at(request.param))


def _only(fixture: str, *devices: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(fixture, devices, indirect=True)


# For tests, or files of them, that are not for all devices.
ON_CPU, UPDATES_ON_CPU = _only("device", "cpu"), _only("device_of_updates", "cpu")
NOT_EMULATED = _only("device", "cpu", CUDA)
UPDATES_NOT_EMULATED = _only("device_of_updates", "cpu", CUDA)
