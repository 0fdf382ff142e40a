"""Settings of a parameter group that are numbers, but neither Python's nor a tensor of float32."""

import numbers
from typing import Any

import torch
from torch import Tensor

# What each has to be.
EXPECTED = {
    "lr": "a number or a tensor of one number",
    "betas": "two numbers from 0 to below 1",
    "alpha": "a number",
    "momentum": "a number",
    "dampening": "a number",
    "weight_decay": "a number",
    "eps": "a number",
}

# With what there is nothing to refuse.
HARMLESS: dict[str, Any] = {
    "lr": 0.0,
    "betas": (0.5, 0.5),
    "alpha": 0.5,
    "momentum": 0.0,
    "dampening": 0.0,
    "weight_decay": 0.0,
    "eps": 1.0,
}


def plain(group: dict[str, Any]) -> dict[str, Any]:
    """The group with Python's numbers, where torch calculates the same with them; or itself."""
    changed: dict[str, Any] = {}
    for key in EXPECTED.keys() & group.keys():
        value = group[key]
        if key == "betas":
            if isinstance(value, (tuple, list)) and any(type(beta) is not float for beta in value):
                changed[key] = tuple(map(_double, value))
        elif not isinstance(value, (float, int)):
            changed[key] = _conversion(key, group)(value)
    return {**group, **changed} if changed else group


def _conversion(key: str, group: dict[str, Any]) -> Any:
    """How torch calculates with a setting: what it negates, adds, or multiplies by goes into its
    kernels as it is; what it subtracts, divides or raises to powers before is rounded on the way.
    """
    if key == "lr" and "betas" in group:
        return _rate
    decoupled = key == "weight_decay" and group.get("decoupled_weight_decay")
    return _double if decoupled or key in ("alpha", "dampening") else _value


def _is_number(value: Any) -> bool:
    """A tensor of one, or NumPy's; none without a sign, as torch takes the opposite of a rate."""
    if type(value) in (Tensor, torch.nn.Parameter):
        real = value.dtype.is_signed and not value.dtype.is_complex
        return real and value.numel() == 1 and value.device.type == "cpu"
    return isinstance(value, numbers.Real) and hasattr(value, "dtype") and value.dtype.kind in "fi"


def _value(value: Any) -> Any:
    if not _is_number(value):
        return value
    return float(value.detach() if isinstance(value, Tensor) else value)


def _double(value: Any) -> Any:
    """The value, if what is calculated with it is in double precision."""
    if isinstance(value, (float, int)):
        return float(value)
    return _value(value) if _is_number(value) and isinstance(value * 1.0, float) else value


def _rate(value: Any) -> Any:
    """The value, in a tensor of float32 if what is calculated with it is in single precision."""
    if not _is_number(value):
        return value
    product = value * 1.0
    if isinstance(product, float):
        return _value(value)
    dtypes = {"float32": torch.float32, "float64": torch.float64}
    dtype = dtypes.get(str(product.dtype).removeprefix("torch."))
    return value if dtype is None else torch.tensor(_value(value), dtype=dtype, device="cpu")


def described(value: Any) -> str:
    """A setting or a state in a few words."""
    if isinstance(value, Tensor):
        grad = " that requires grad" if value.requires_grad else ""
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}{grad}"
    return f"{value!r:.60}"
