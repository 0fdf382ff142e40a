"""Where training was when an epoch began, to go back there if the epoch is not finished."""

import copy
from typing import Any

import torch
from torch import Tensor

_MUTABLE = (Tensor, list, dict)


class Snapshot:
    """Parameters, buffers, optimizer, schedulers and generators as they are now."""

    def __init__(
        self,
        tensors: list[Tensor],
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        generators: list[torch.Generator],
    ) -> None:
        self._tensors = [(t, t.detach().clone()) for t in tensors]
        self._optimizer = optimizer
        self._groups = [
            {key: _copied(value) for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]
        self._state = {
            parameter: {key: _copied(value) for key, value in values.items()}
            for parameter, values in optimizer.state.items()
        }
        self._scheduler = scheduler
        self._schedule = None if scheduler is None else copy.deepcopy(scheduler.state_dict())
        # Of a device, what dropout draws from.
        devices = {t.device.index for t in tensors if t.is_cuda}
        defaults = [torch.default_generator, *(torch.cuda.default_generators[i] for i in devices)]
        self._generators = [(g, g.get_state()) for g in (*defaults, *generators)]

    def restore(self) -> None:
        with torch.no_grad():
            for tensor, values in self._tensors:
                tensor.copy_(values)
            for parameter in list(self._optimizer.state):
                if parameter not in self._state:
                    del self._optimizer.state[parameter]
            for parameter, entries in self._state.items():
                state = self._optimizer.state[parameter]
                for key in set(state) - set(entries):
                    del state[key]
                _put_back(entries, state)
            for group, settings in zip(self._optimizer.param_groups, self._groups, strict=True):
                _put_back(settings, group)
        if self._scheduler is not None:
            self._scheduler.load_state_dict(self._schedule)
        for generator, position in self._generators:
            generator.set_state(position)


def _put_back(values: dict[str, Any], target: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Tensor) and isinstance(target.get(key), Tensor):
            target[key].copy_(value)
        else:
            target[key] = value


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return copy.deepcopy(value) if isinstance(value, _MUTABLE) else value
