"""The CUDA kernels on the host: `queue.h` runs every thread of a block in turn.

What a kernel reads and writes, in which order it adds, and where its threads wait for each other is
then tested where no device is. The same launches are compiled as for a device, by the C++ compiler.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parent
CSRC = HERE.parents[2] / "csrc"
STORAGES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
MODELS = {"linear": 0, "polynomial": 1, "legendre": 2, "indexed": 3}
_NUMBERS = 9
"""Settings of a parameter, all NaN for one that is frozen."""
KINDS = {"SGD": 0, "RMSprop": 1, "Adam": 2}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("row", ctypes.c_int64),
        ("column", ctypes.c_int64),
        ("flat", ctypes.c_int),
    )


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "c++"))


def build(directory: Path) -> Emulator:
    """Compile the launches for the host, which takes some ten seconds."""
    library = directory / "emulator.so"
    command = [
        compiler() or "c++",
        *(
            "-std=c++20",
            "-O2",
            "-U_FORTIFY_SOURCE",
            "-shared",
            "-fPIC",
            "-ffp-contract=off",
            "-fno-tree-slp-vectorize",
        ),
        *(f"-I{CSRC}", f"-I{CSRC / 'third_party'}", f"-I{HERE}"),
        str(HERE / "emulator.cpp"),
        str(CSRC / "cuda" / "scratch.cpp"),
        *("-o", str(library)),
    ]
    subprocess.run(command, check=True)
    return Emulator(library)


def _described(tensor: Tensor | None) -> _Tensor:
    if tensor is None:
        return _Tensor()
    if tensor.dim() == 2:
        (rows, columns), (row, column) = tensor.shape, tensor.stride()
    else:
        rows, columns, row, column = 1, tensor.numel(), 0, tensor.stride(0) if tensor.dim() else 1
    return _Tensor(tensor.data_ptr(), rows, columns, row, column, tensor.is_contiguous())


def _points(tensor: Tensor | None) -> _Tensor:
    """A vector as a column."""
    return _described(
        None if tensor is None else tensor.reshape(-1, 1) if tensor.dim() == 1 else tensor
    )


def _pointers(tensors: Sequence[Tensor | None]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[None if t is None else t.data_ptr() for t in tensors])


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _sizes(tensors: Sequence[Tensor]) -> Any:
    return (ctypes.c_int64 * len(tensors))(*[t.numel() for t in tensors])


def _numbers(settings: Sequence[Sequence[float]]) -> Any:
    flat = [number for numbers in settings for number in numbers or [math.nan] * _NUMBERS]
    return (ctypes.c_double * len(flat))(*flat)


def gradient_like(tensor: Tensor) -> Tensor:
    """Room for a gradient, dense and full of NaNs: of a half type it is float32."""
    dtype = torch.float32 if tensor.dtype.itemsize == 2 else tensor.dtype
    return torch.full_like(tensor, torch.nan, dtype=dtype, memory_format=torch.contiguous_format)


class Emulator:
    """The calls of ``gdcore._cuda`` on CPU tensors; threads run forwards or backwards."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self.backwards = False

    def _call(self, name: str, dtype: torch.dtype, *arguments: Any) -> None:
        function = getattr(self._library, name)
        if function(STORAGES[dtype], int(self.backwards), *arguments) != 0:
            raise RuntimeError(f"{name} failed: see stderr")

    def launches(self) -> int:
        """How many there were since this was last asked."""
        return int(self._library.count_launches())

    @contextlib.contextmanager
    def device(self, captures: bool = False) -> Iterator[Callable[[bool], None]]:
        """CPU tensors pass for a device's in optimizers' steps, whose launches come here.

        Those of two dimensions are on a second device. Launches fail while the function that is
        given was last called with True.

        Args:
            captures: whether the streams are being captured into a graph.
        """
        from gdcore import _core, _ops

        library, python = self._library, ctypes.pythonapi
        library.pretended_exchange.restype = library.pretended_updates.restype = ctypes.c_void_p
        python.PyCapsule_GetPointer.restype = ctypes.c_void_p
        python.PyCapsule_New.restype = ctypes.py_object
        names = b"dlpack_exchange_api", b"gdcore.device_updates.2"
        given = ctypes.py_object(torch.Tensor.__dlpack_c_exchange_api__)
        exchange = library.pretended_exchange(
            ctypes.c_void_p(python.PyCapsule_GetPointer(given, names[0]))
        )
        capsules = [
            python.PyCapsule_New(ctypes.c_void_p(pointer), name, None)
            for pointer, name in zip((exchange, library.pretended_updates()), names, strict=True)
        ]
        fail = library.pretend_failure
        library.pretend_capture(captures)
        _core.connect(type("Tensor", (), {"__dlpack_c_exchange_api__": capsules[0]}))
        _core.connect_device_updates(capsules[1])
        try:
            yield fail
        finally:
            fail(False)
            library.pretend_capture(False)
            _core.connect(torch.Tensor)
            if _ops.cuda is not None:
                _core.connect_device_updates(_ops.cuda.UPDATES)

    def mse(
        self,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        mean: bool,
        loss: Tensor | None,
        losses: Tensor | None,
        gradient: Tensor | None,
    ) -> None:
        data = (_Tensor * 3)(_described(input), _described(target), _described(weight))
        results = map(_pointer, (loss, losses, gradient))
        self._call("emulate_mse", input.dtype, data, int(mean), *results)

    def loss(
        self,
        model: str,
        data: tuple[Tensor, Tensor, Tensor | None],
        parameters: Sequence[Tensor],
        mean: bool,
        loss: Tensor,
        gradients: Sequence[Tensor],
        dx: Tensor | None = None,
    ) -> None:
        self._call(
            "emulate_loss",
            data[0].dtype,
            MODELS[model],
            (_Tensor * 3)(*map(_points, data)),
            _pointers(parameters),
            _sizes(parameters),
            len(parameters),
            int(mean),
            _pointer(dx),
            _pointer(loss),
            _pointers(gradients),
        )

    def train(
        self,
        model: str,
        data: tuple[Tensor, Tensor, Tensor | None],
        parameters: Sequence[Tensor],
        mean: bool,
        kind: str,
        settings: Sequence[Sequence[float]],
        states: Sequence[Sequence[Tensor | None]],
        epochs: range,
        losses: Tensor,
        status: Tensor | None,
        previous: Tensor | None,
        stops: bool = True,
        records: Tensor | None = None,
        record_every: int = 1,
        max_grad_norm: float = -1.0,
        norms: Tensor | None = None,
        index: Sequence[Tensor] = (),
    ) -> None:
        self._call(
            "emulate_train",
            data[0].dtype,
            MODELS[model],
            (_Tensor * 3)(*map(_points, data)),
            _pointers(parameters),
            _sizes(parameters),
            len(parameters),
            _pointers(index),
            int(mean),
            KINDS[kind],
            _numbers(settings),
            _pointers([state for own in states for state in own]),
            ctypes.c_int64(epochs.start),
            ctypes.c_int64(len(epochs)),
            int(stops),
            *map(_pointer, (losses, status, previous, records)),
            ctypes.c_int64(record_every),
            ctypes.c_double(max_grad_norm),
            _pointer(norms),
        )

    def scale(self, tensor: Tensor, factor: Tensor) -> None:
        data = (_Tensor * 1)(_described(tensor))
        self._call("emulate_scale", tensor.dtype, data, _pointer(factor))

    def legendre_p3(self, x: Tensor, grad: Tensor | None, out: Tensor) -> None:
        data = (_Tensor * 2)(_described(x), _described(grad))
        self._call("emulate_legendre_p3", x.dtype, data, _pointer(out))

    def update(
        self,
        kind: str,
        slots: Sequence[Sequence[Tensor | None]],
        settings: Sequence[Sequence[float]],
    ) -> None:
        parameters = [own[0] for own in slots if own[0] is not None]
        self._call(
            "emulate_update",
            parameters[0].dtype,
            KINDS[kind],
            len(slots),
            _pointers([tensor for own in slots for tensor in own]),
            _sizes(parameters),
            _numbers(settings),
        )
