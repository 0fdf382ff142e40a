"""The optimizers' updates for many runs at once, elementwise on (q, k, runs) and in place.

The formulas are `gdcore.reference`'s; a setting that varies is a tensor over the runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["Updates", "kind_of", "merged"]

_KINDS: tuple[tuple[type, str], ...] = (
    (torch.optim.SGD, "sgd"),
    (torch.optim.RMSprop, "rmsprop"),
    (torch.optim.Adam, "adam"),
    (torch.optim.AdamW, "adam"),
)
_SWITCHES = ("nesterov", "maximize", "centered", "amsgrad", "decoupled_weight_decay")


def kind_of(optimizer: Any) -> str:
    """Which formula an optimizer follows.

    Raises:
        TypeError: none that is known here.
    """
    for base, kind in _KINDS:
        if isinstance(optimizer, base):
            return kind
    raise TypeError(
        "optimizer: expected SGD, RMSprop, Adam or AdamW of torch or gdcore, "
        f"got {type(optimizer).__name__}"
    )


class Updates:
    """One optimizer's state for every run.

    Args:
        kind: as `kind_of` gives it.
        settings: each a number, or a tensor that broadcasts against the parameters (q, k, runs).
        like: the parameters.
    """

    def __init__(self, kind: str, settings: dict[str, Any], like: Tensor) -> None:
        self.settings = settings
        self.steps = 0
        self._state: dict[str, Tensor] = {}
        self._scratch = torch.empty_like(like)
        self._update = {"sgd": self._sgd, "rmsprop": self._rmsprop, "adam": self._adam}[kind]

    def step(self, theta: Tensor, grad: Tensor) -> None:
        """Update the parameters in place; the gradient is used up."""
        settings = self.settings
        self.steps += 1
        if settings["maximize"]:
            grad.neg_()
        if _used(settings["weight_decay"]):
            if settings.get("decoupled_weight_decay"):
                theta.mul_(1 - settings["lr"] * settings["weight_decay"])
            else:
                grad.add_(torch.mul(theta, settings["weight_decay"], out=self._scratch))
        self._update(theta, grad)

    def _kept(self, name: str) -> Tensor:
        if name not in self._state:
            self._state[name] = torch.zeros_like(self._scratch)
        return self._state[name]

    def _moved(self, average: Tensor, share: float | Tensor, value: Tensor) -> None:
        """average ← average + share (value - average)."""
        average.add_(torch.sub(value, average, out=self._scratch).mul_(share))

    def _sgd(self, theta: Tensor, grad: Tensor) -> None:
        settings = self.settings
        momentum = settings["momentum"]
        if _used(momentum):
            buffer = self._kept("momentum_buffer")
            if self.steps == 1:
                buffer.copy_(grad)
            else:
                # torch reads the dampening only where there is momentum.
                damped = (_tensor(momentum) != 0).to(grad.dtype)
                kept = 1 - damped * settings["dampening"]
                buffer.mul_(momentum).add_(torch.mul(grad, kept, out=self._scratch))
            if settings["nesterov"]:
                grad.add_(torch.mul(buffer, momentum, out=self._scratch))
            else:
                grad = buffer
        theta.sub_(torch.mul(grad, settings["lr"], out=self._scratch))

    def _rmsprop(self, theta: Tensor, grad: Tensor) -> None:
        settings = self.settings
        alpha = settings["alpha"]
        square = self._kept("square_avg")
        square.mul_(alpha).add_(torch.mul(grad, grad, out=self._scratch).mul_(1 - alpha))
        if settings["centered"]:
            average = self._kept("grad_avg")
            self._moved(average, 1 - alpha, grad)
            divisor = torch.mul(average, average, out=self._scratch).neg_().add_(square)
        else:
            divisor = self._scratch.copy_(square)
        grad.div_(divisor.sqrt_().add_(settings["eps"]))
        if _used(settings["momentum"]):
            grad = self._kept("momentum_buffer").mul_(settings["momentum"]).add_(grad)
        theta.sub_(torch.mul(grad, settings["lr"], out=self._scratch))

    def _adam(self, theta: Tensor, grad: Tensor) -> None:
        settings = self.settings
        first, second = settings["beta1"], settings["beta2"]
        average, square = self._kept("exp_avg"), self._kept("exp_avg_sq")
        self._moved(average, 1 - first, grad)
        square.mul_(second).add_(torch.mul(grad, grad, out=self._scratch).mul_(1 - second))
        if settings["amsgrad"]:
            most = self._kept("max_exp_avg_sq")
            square = torch.maximum(most, square, out=most)
        divisor = torch.sqrt(square, out=self._scratch)
        divisor.div_((1 - second**self.steps) ** 0.5).add_(settings["eps"])
        change = torch.div(average, divisor, out=grad)
        theta.sub_(change.mul_(settings["lr"] / (1 - first**self.steps)))


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, device="cpu")


def _used(value: float | Tensor) -> bool:
    return bool((_tensor(value) != 0).any())


def merged(
    optimizer: Any, places: list[tuple[Tensor, Tensor]], shape: tuple[int, int]
) -> dict[str, Any]:
    """An optimizer's settings as `Updates` takes them.

    Args:
        optimizer: the user's.
        places: each parameter with the positions of its elements in Θ (q, k), row-major.
        shape: (q, k).

    Raises:
        ValueError: a parameter that it does not hold; options that differ between parameters.
    """
    found: dict[str, Any] = {}
    for parameter, at in places:
        groups = [g for g in optimizer.param_groups if any(p is parameter for p in g["params"])]
        if not groups:
            raise ValueError(
                "optimizer: expected to hold all parameters of model that require grad, got one "
                f"of shape {tuple(parameter.shape)} that it does not hold"
            )
        for key, value in _numbers(groups[0]).items():
            if key in _SWITCHES:
                if found.setdefault(key, value) != value:
                    raise ValueError(
                        f"optimizer: expected one {key} for all parameters, got True and False"
                    )
                continue
            whole = found.setdefault(
                key, torch.full(shape, torch.nan, dtype=torch.float64, device="cpu")
            )
            whole.view(-1)[at] = value
    return {key: _narrow(value) for key, value in found.items()}


def _numbers(group: dict[str, Any]) -> dict[str, Any]:
    keys = ("lr", "momentum", "dampening", "weight_decay", "alpha", "eps")
    numbers = {key: float(group[key]) for key in keys if key in group}
    if "betas" in group:
        numbers["beta1"], numbers["beta2"] = map(float, group["betas"])
    return numbers | {key: bool(group[key]) for key in _SWITCHES if key in group}


def _narrow(value: Any) -> Any:
    """A number where it is the same everywhere, else (q, k, 1)."""
    if not isinstance(value, Tensor):
        return value
    first = float(value.reshape(-1)[0])
    return first if bool((value == first).all()) else value[..., None]
