"""What the parameters of a model are called."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .._recognition.names import unique


def named_parameters(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """A module's parameters by their names, and other tensors that are trained, by the variables
    that the module's forward, or the function, knows them by.
    """
    own: dict[str, Tensor] = {}
    function = model
    if isinstance(model, torch.nn.Module):
        own, function = dict(model.named_parameters()), model.forward
    known = set(map(id, own.values()))
    trained = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    others = [(i, p) for i, p in enumerate(trained) if id(p) not in known]
    if not others:
        return own
    names = {id(value): name for name, value in _variables(function) if isinstance(value, Tensor)}
    named = [names.get(id(p), f"param {i}") for i, p in others]
    every = [*own.values(), *(p for _, p in others)]
    return dict(zip(unique([*own, *named]), every, strict=True))


def _variables(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    code = getattr(function, "__code__", None)
    if code is None:
        return
    for name in code.co_names:
        if name in function.__globals__:
            yield name, function.__globals__[name]
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not bound yet
            continue


def short_names(names: list[str]) -> list[str]:
    """W and b for a single weight and a single bias; the others keep their names."""
    last = [name.rpartition(".")[2] for name in names]
    symbols = {"weight": "W", "bias": "b"}
    return [
        symbols[end] if end in symbols and last.count(end) == 1 else name
        for name, end in zip(names, last, strict=True)
    ]


def name_of(value: Any) -> str:
    """A function's own name, or the class of an object."""
    return getattr(value, "__name__", None) or type(value).__name__
