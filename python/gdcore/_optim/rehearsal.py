"""What torch would refuse of a step, found out before anything has changed."""

import functools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from . import namesake, settings
from .namesake import Group

_LAYOUTS = (torch.strided, torch.sparse_coo)


def expect_states(state: Any, parameters: list[Tensor]) -> None:
    """That there is a place for the states of these, which have none yet."""
    if isinstance(state, defaultdict):
        return
    for parameter in parameters:
        if parameter not in state:
            raise KeyError(
                "state: expected a collections.defaultdict(dict), as torch makes it, got a "
                f"{type(state).__name__} that lacks a parameter"
            )


def look_through(optimizer: Any, group: Group, number: int) -> None:
    """What the namesake refuses of a group of one parameter before it steps."""
    made = namesake.stand_in(optimizer, [])
    try:
        namesake.begin(made, group)
    except KeyError:
        expect_states(made.state, group["params"])
        raise
    except (AttributeError, TypeError) as error:
        (parameter,) = group["params"]
        values = made.state.get(parameter)
        if isinstance(values, dict):
            begin = functools.partial(namesake.begin, made)
            raise _blamed(error, group, number, begin) from error
        got = settings.described(values)
        raise type(error)(f"state: expected a dict for each parameter, got {got}") from error


def _blamed(
    error: Exception, group: Group, number: int, attempt: Callable[[Group], None]
) -> Exception:
    """The error, of the same type, in words that name the setting without which there is none."""
    if type(error) not in (TypeError, ValueError, RuntimeError, ZeroDivisionError, AttributeError):
        return error
    changed = dict(group)
    # A number is what is expected, whatever else stands in its way.
    numbers = [key for key, value in group.items() if isinstance(value, (int, float))]
    for key in (key for key in settings.EXPECTED if key in group and key not in numbers):
        changed[key] = settings.HARMLESS[key]
        try:
            attempt(changed)
        except Exception:  # there is more that is wrong
            continue
        got = settings.described(group[key])
        return type(error)(
            f"param_groups[{number}][{key!r}]: expected {settings.EXPECTED[key]}, got {got}"
        )
    return error


def rehearse(
    optimizer: Any, group: Group, number: int, dtype_of: Callable[[Tensor], torch.dtype]
) -> None:
    """The group's step with parameters that have no elements, one of each kind, on the CPU.

    ``dtype_of`` says in which a parameter, a gradient or a state enters the step.
    """
    met = set()
    whole = any(isinstance(v, Tensor) and v.numel() > 1 for v in _numbers(group))
    for parameter in group["params"]:
        values = optimizer.state.get(parameter, {})
        fake = any(isinstance(v, FakeTensor) for v in (parameter, *values.values()))
        if parameter.device.type != "cpu" or fake:
            continue
        odd = whole or _is_odd(parameter, values)
        kind = id(parameter) if odd else _kind_of(parameter, values)
        if kind in met:
            continue
        met.add(kind)
        with _disable_current_modes():
            attempt = _rehearsal_of(optimizer, parameter, values, dtype_of, odd)
            try:
                attempt(group)
            except Exception as error:
                named = _blamed(error, group, number, attempt)
                if named is error:
                    named = _state_blamed(error, parameter, values)
                raise named from error


def _rehearsal_of(
    optimizer: Any,
    parameter: Tensor,
    values: dict[str, Any],
    dtype_of: Callable[[Tensor], torch.dtype],
    whole: bool,
) -> Callable[[Group], None]:
    """A step of one parameter's stand-in, as a function of the group with its settings."""

    def like(value: Any) -> Any:
        known = isinstance(value, Tensor)
        return _without_elements(value, dtype_of(value), whole) if known else value

    own, grad = like(parameter), like(parameter.grad)
    if optimizer.defaults["differentiable"] and parameter.is_leaf:
        own.requires_grad_(parameter.requires_grad)
    if grad.dtype != own.dtype:
        own.grad_dtype = grad.dtype
    own.grad = grad

    def attempt(group: Group) -> None:
        state = {key: like(value) for key, value in values.items()}
        if isinstance(values.get("step"), Tensor):
            state["step"] = values["step"].detach().clone()
        namesake.step(
            namesake.stand_in(
                optimizer,
                [{**group, "params": [own]}],
                state=defaultdict(dict, {own: state}),
            )
        )

    return attempt


def _state_blamed(error: Exception, parameter: Tensor, values: dict[str, Any]) -> Exception:
    """The error in words that name a state which is not as its parameter is."""
    if type(error) not in (TypeError, RuntimeError, AttributeError):
        return error
    own = parameter.dtype, parameter.shape
    for key, value in values.items():
        fits = isinstance(value, Tensor) and (value.dtype, value.shape) == own
        if key != "step" and not fits:
            return type(error)(
                f"{key}: expected {settings.described(parameter.detach())} as its parameter, got "
                f"{settings.described(value)}"
            )
    return error


def _kind_of(parameter: Tensor, values: dict[str, Any]) -> tuple[Any, ...]:
    """What a step of it depends on before anything is calculated."""

    def kind(key: str, value: Any) -> Any:
        tensor = isinstance(value, Tensor) and key != "step"
        return (value.dtype, value.layout) if tensor else repr(value)

    states = tuple((key, kind(key, value)) for key, value in values.items())
    grad = kind("grad", parameter.grad)
    return parameter.dtype, parameter.is_leaf and parameter.requires_grad, grad, states


def _numbers(group: Group) -> list[Any]:
    values = [group[key] for key in settings.EXPECTED if key in group]
    return [part for v in values for part in (v if isinstance(v, (tuple, list)) else (v,))]


def _is_odd(parameter: Tensor, values: dict[str, Any]) -> bool:
    """Whether torch might refuse shapes or strides."""
    tensors = [parameter, parameter.grad, *(v for k, v in values.items() if k != "step")]
    return any(
        isinstance(t, Tensor)
        and (t.shape != parameter.shape or t.layout not in _LAYOUTS or _is_expanded(t))
        for t in tensors
    )


def _is_expanded(tensor: Tensor) -> bool:
    if tensor.layout is not torch.strided:
        return False
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return any(size > 1 and stride == 0 for size, stride in sizes)


def _without_elements(tensor: Tensor, dtype: torch.dtype, whole: bool) -> Tensor:
    """A tensor as torch sees it before it calculates; ``whole`` with its shape, and zeros."""
    if tensor.layout is not torch.strided:
        shape = tensor.shape if whole else (0,)
        return torch.zeros(shape, dtype=dtype, layout=tensor.layout, device="cpu")
    if not whole:
        return torch.zeros(0, dtype=dtype, device="cpu")
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    own = [1 if stride == 0 else size for size, stride in strides]
    return torch.zeros(own, dtype=dtype, device="cpu").expand(tensor.shape)
