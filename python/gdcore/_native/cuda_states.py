"""An optimizer's settings and states as the launches on CUDA take them."""

from collections.abc import MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Group", "Missing", "Settings", "States", "group_of"]

Group = dict[str, Any]
States = MutableMapping[Tensor, dict[str, Any]]


def group_of(groups: Sequence[Group], parameter: Tensor) -> Group | None:
    """None for a parameter that is not trained."""
    if not parameter.requires_grad:
        return None
    for group in groups:
        if any(p is parameter for p in group["params"]):
            return group
    return None


class Settings(NamedTuple):
    """One parameter's, in the order of ``csrc/cuda/arguments.h``, and the names of its states."""

    numbers: list[float]
    """Empty for a parameter that is frozen."""
    states: tuple[str | None, str | None, str | None]
    counts: bool = False
    fused: bool = False
    """Whether torch counts the steps on the device."""

    @classmethod
    def of(cls, rule: str, group: Group | None, own: dict[str, Any]) -> "Settings":
        if group is None:
            return cls([], (None, None, None))

        def numbers(*names: str) -> list[float]:
            return [_number(name, group[name]) for name in names]

        steps = float(own["step"]) if "step" in own else 0.0
        if rule == "sgd":
            found = numbers("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
            fresh = own.get("momentum_buffer") is None
            buffer = "momentum_buffer" if group["momentum"] != 0 else None
            return cls([*found, 0.0, 0.0, float(fresh)], (buffer, None, None))
        if rule == "rmsprop":
            found = numbers("lr", "alpha", "eps", "weight_decay", "momentum", "maximize")
            buffer = "momentum_buffer" if group["momentum"] > 0 else None
            average = "grad_avg" if group["centered"] else None
            return cls([*found, 0.0, 0.0, steps], ("square_avg", buffer, average), True)
        rest = numbers("eps", "weight_decay", "decoupled_weight_decay", "maximize")
        single = isinstance(group["lr"], Tensor) and group["lr"].dtype != torch.float64
        betas = [float(beta) for beta in group["betas"]]
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"optimizer: expected betas below 1, got {betas}")
        found = [*numbers("lr"), float(single), *betas, *rest, steps]
        largest = "max_exp_avg_sq" if group["amsgrad"] else None
        return cls(found, ("exp_avg", "exp_avg_sq", largest), True, bool(group.get("fused")))

    def check(self, own: dict[str, Any], parameter: Tensor) -> None:
        """That what states there are lie in memory as the parameter does."""
        for name in self.states:
            state = None if name is None else own.get(name)
            if state is not None and not (
                state.is_contiguous()
                and (state.shape, state.dtype) == (parameter.shape, parameter.dtype)
                and state.device == parameter.device
            ):
                raise ValueError(
                    f"optimizer: expected {name} contiguous, of shape {tuple(parameter.shape)} and "
                    f"{parameter.dtype}, on {parameter.device} as its parameter, got shape "
                    f"{tuple(state.shape)}, {state.dtype}, on {state.device}"
                )

    def fresh(self, own: dict[str, Any], parameter: Tensor) -> dict[str, Tensor]:
        """The states that there are not, as torch makes them."""
        found = {}
        names = ["step", *self.states] if self.counts else self.states
        lacking = [name for name in names if name is not None and own.get(name) is None]
        if self.counts and own and lacking:
            raise ValueError(
                f"optimizer: expected a state {lacking[0]} of every parameter that has state, got "
                "none"
            )
        if self.counts and not own:
            double = torch.get_default_dtype() == torch.float64
            found["step"] = torch.zeros(
                (),
                dtype=torch.float64 if double and not self.fused else torch.float32,
                device=parameter.device if self.fused else "cpu",
            )
        for name in lacking:
            if name != "step":
                found[name] = torch.zeros_like(parameter, requires_grad=False)
        return found


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"optimizer: expected settings that are numbers, got {name} = {value!r}"
        ) from error


class Missing:
    """The states that an optimizer has not, which it gets with the first step that is made."""

    def __init__(self, state: States) -> None:
        self._state = state
        self._made: list[tuple[Tensor, dict[str, Tensor], dict[str, Any] | None]] = []
        self._shown = False

    def made(self, own: Settings, parameter: Tensor) -> dict[str, Tensor]:
        before = self._state.get(parameter)
        with torch.inference_mode(False):  # they outlive whatever mode this is
            fresh = own.fresh(before or {}, parameter)
        if fresh:
            self._made.append((parameter, fresh, None if before is None else dict(before)))
        return fresh

    def show(self, there: bool) -> None:
        """Have the optimizer hold them, or what it held before."""
        if there == self._shown:
            return
        self._shown = there
        for parameter, fresh, before in self._made:
            if there:
                self._state.setdefault(parameter, {}).update(fresh)
            elif before is None:
                del self._state[parameter]
            else:
                own = self._state[parameter]
                own.clear()
                own.update(before)
