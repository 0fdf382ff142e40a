"""The emulator's calls on a device: what its tests say of the kernels is then said of that too."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Data = tuple[Tensor, Tensor, Tensor | None]


class OnDevice:
    """Takes tensors of the CPU, as they lie in their memory, there and back."""

    backwards = False  # in what order threads run is the device's own affair

    def __init__(self, device: str = "cuda") -> None:
        from gdcore._native import cuda_ops

        self._ops, self._device = cuda_ops, torch.device(device)

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
        native, storage = self._ops.native, self._ops.STORAGES[input.dtype]
        count = native.mse_scratch(storage, input.numel(), mean and weight is not None)
        with self._there([input, target, weight, loss, losses, gradient]) as moved:
            native.mse(*moved[:3], mean, *moved[3:], self._scratch(count))

    def loss(
        self,
        model: str,
        data: Data,
        parameters: Sequence[Tensor],
        mean: bool,
        loss: Tensor,
        gradients: Sequence[Tensor],
        dx: Tensor | None = None,
    ) -> None:
        n, kind = len(parameters), self._ops.MODELS[model]
        with self._there([*data, loss, dx, *parameters, *gradients]) as moved:
            x, target, weight, loss_there, dx_there, *rest = moved
            memory = self._ops.scratch(
                model, (x, target, weight), rest[:n], mean and weight is not None, dx is not None
            )
            results = loss_there, rest[n:], dx_there
            self._ops.native.loss(kind, x, target, weight, rest[:n], mean, *results, memory)

    def scale(self, tensor: Tensor, factor: Tensor) -> None:
        with self._there([tensor, factor]) as moved:
            self._ops.native.scale(*moved)

    def legendre_p3(self, x: Tensor, grad: Tensor | None, out: Tensor) -> None:
        with self._there([x, grad, out]) as moved:
            self._ops.native.legendre_p3(*moved)

    def _scratch(self, count: int) -> Tensor:
        return torch.full((count,), torch.nan, dtype=torch.float64, device=self._device)

    @contextmanager
    def _there(self, tensors: Sequence[Tensor | None]) -> Iterator[list[Any]]:
        """The same views of copies of their memory, whose bytes are brought back."""
        bytes_of: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        moved: list[Tensor | None] = []
        for tensor in tensors:
            if tensor is None:
                moved.append(None)
                continue
            storage = tensor.untyped_storage()
            key = storage.data_ptr(), storage.nbytes()
            if key not in bytes_of:
                here = torch.empty(0, dtype=torch.uint8).set_(storage)
                bytes_of[key] = here, here.to(self._device, copy=True)
            view = torch.empty(0, dtype=tensor.dtype, device=self._device)
            there = bytes_of[key][1].untyped_storage()
            moved.append(view.set_(there, tensor.storage_offset(), tensor.shape, tensor.stride()))
        yield moved
        for here, copy in bytes_of.values():
            here.copy_(copy)
