"""Where Python keeps a model's state: cells, globals, attributes, classes, containers."""

import collections
import functools
import random
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

__all__ = [
    "CONTAINERS",
    "MANY",
    "Attributes",
    "Names",
    "callables",
    "content",
    "hidden",
    "owners",
    "put",
    "worth",
]

CONTAINERS = (list, dict, set, collections.deque, bytearray)
MANY = 1000
"""Elements beyond which a container is data: only its length is kept in mind."""
_FOREIGN = (sys.stdlib_module_names | {"torch", "numpy", "gdcore"}) - {"__main__"}
"""Packages whose functions, classes and variables are theirs, not the user's."""
_OF_MODULES = frozenset(vars(torch.nn.Module()))
_DRAWING = (random.Random, np.random.Generator, np.random.RandomState)
_SHARED = {id(kept) for kept in (vars(random)["_inst"], vars(np.random.mtrand)["_rand"])}
"""The generators that everyone shares, whose states are compared."""


def worth(value: Any) -> bool:
    """Whether a value could lead to tensors or hold state of the user's."""
    if value is None or isinstance(value, (int, float, str, bytes, types.ModuleType)):
        return False
    if isinstance(value, torch.nn.Module):
        return True
    if isinstance(value, type):
        return not _foreign(value.__module__)
    if isinstance(value, types.FunctionType):
        # A wrapper of theirs may hold a function of the user's.
        return bool(value.__closure__) or not _foreign(value.__globals__.get("__name__"))
    if isinstance(value, _DRAWING):
        return True
    return not (getattr(type(value), "__module__", "") or "").startswith(("torch.", "numpy"))


def _foreign(module: Any) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in _FOREIGN


def hidden(value: Any) -> str | None:
    """State that moves on with every use and cannot be compared, in words."""
    if id(value) in _SHARED:
        return None
    if isinstance(value, _DRAWING):
        return f"random numbers of its own ({type(value).__name__})"
    if hasattr(type(value), "__next__"):
        return f"an iterator ({type(value).__name__})"
    return None


def owners(value: Any) -> Iterator[tuple[list[tuple[str, Any]], Any]]:
    """The places that hold a value's parts, each with the named parts in it."""
    if isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, type):
        yield list(vars(value).items()), Attributes(value, list(vars(value)))
    elif isinstance(value, torch.nn.Module):
        state = value.__dict__
        yield [(k, v) for k, v in state.items() if k not in _OF_MODULES], state
        for registered in ("_parameters", "_buffers", "_modules"):
            if type(state.get(registered)) is dict:  # not where it is compiled
                yield [], state[registered]
    elif isinstance(value, CONTAINERS) and len(value) > MANY:
        yield [], value
    elif isinstance(value, dict):
        yield [(str(key), child) for key, child in value.items()], value
    elif isinstance(value, (list, collections.deque)):
        yield [(str(i), child) for i, child in enumerate(value)], value
    elif isinstance(value, (set, bytearray)):
        yield [], value
    elif isinstance(value, tuple) and len(value) <= MANY:
        yield [(str(i), child) for i, child in enumerate(value)], {}
    else:
        if isinstance(getattr(value, "__dict__", None), dict):
            yield list(value.__dict__.items()), value.__dict__
        slots = [key for key in _slots(type(value)) if hasattr(value, key)]
        if slots:
            yield [(key, getattr(value, key)) for key in slots], Attributes(value, slots)


def _of_function(value: types.FunctionType) -> Iterator[tuple[list[tuple[str, Any]], Any]]:
    foreign = _foreign(value.__globals__.get("__name__"))
    named = [] if foreign else _named(value.__code__)
    used = Names(value.__globals__, named)
    modules = [value.__globals__.get(key) for key in named]
    for key, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        try:
            yield [(key, cell.cell_contents)], cell
        except ValueError:  # not assigned yet
            continue
        modules.append(cell.cell_contents)
    if used.keys:
        yield [(key, value.__globals__.get(key)) for key in used.keys], used
    met = set()
    while modules:
        module = modules.pop()
        if not isinstance(module, types.ModuleType) or id(module) in met:
            continue
        met.add(id(module))
        if _foreign(module.__name__):
            continue
        modules += [vars(module).get(key) for key in named]
        within = Names(vars(module), named)
        if within.keys:
            yield [(key, vars(module).get(key)) for key in within.keys], within
    defaults = value.__defaults__ or ()
    if defaults:
        names = value.__code__.co_varnames[: value.__code__.co_argcount]
        yield list(zip(names[-len(defaults) :], defaults, strict=True)), {}
    for attributes in (value.__kwdefaults__, value.__dict__):
        if attributes:
            yield list(attributes.items()), attributes
        elif attributes is not None:
            yield [], attributes


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        if not _foreign(base.__module__):
            for key, value in vars(base).items():
                if isinstance(value, types.MemberDescriptorType):
                    yield key


def callables(value: Any) -> Iterator[Any]:
    """The Python functions that calling a value runs, what they are bound to, and its classes."""
    if isinstance(value, types.MethodType):
        yield value.__self__
        yield value.__func__
    elif isinstance(value, types.BuiltinMethodType):
        yield value.__self__
    elif isinstance(value, (classmethod, staticmethod)):
        yield value.__func__
    elif isinstance(value, property):
        yield value.fget
    elif isinstance(value, functools.partial):
        yield value.func
        yield list(value.args)
        yield value.keywords
    elif isinstance(value, type):
        yield from value.__mro__[1:]
    elif isinstance(value, torch.nn.Module):
        kind = type(value)
        if not kind.__module__.startswith("torch."):
            yield kind.forward
        yield kind
    elif not isinstance(value, types.FunctionType):
        for kind in type(value).__mro__:
            call = kind.__dict__.get("__call__")
            if isinstance(call, types.FunctionType):
                yield call
                break
        yield type(value)


class Names:
    """The variables of a namespace that a function's code names."""

    def __init__(self, namespace: dict[str, Any], named: list[str]) -> None:
        self.namespace = namespace
        self.keys = [
            key
            for key in named
            if key in namespace and not isinstance(namespace[key], types.ModuleType)
        ]


class Attributes:
    """Those of a class, or those of an object that has no dict for them."""

    def __init__(self, owner: Any, keys: list[str]) -> None:
        self.owner, self.keys = owner, keys

    def content(self) -> dict[str, Any]:
        if isinstance(self.owner, type):
            return dict(vars(self.owner))
        return {key: getattr(self.owner, key, None) for key in self.keys}

    def put(self, before: dict[str, Any]) -> None:
        now = self.content()
        for key in now.keys() - before.keys():
            delattr(self.owner, key)
        for key, value in before.items():
            if key not in now or now[key] is not value:
                setattr(self.owner, key, value)

    def stable(self) -> Iterator[str]:
        """The keys under which the same object is read every time."""
        for key in self.keys:
            try:
                if getattr(self.owner, key) is getattr(self.owner, key):
                    yield key
            except AttributeError:  # of instances only
                continue


def _named(code: types.CodeType) -> list[str]:
    """The global names in a function's code and in that of the functions inside it."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _named(constant)
    return names


def content(owner: Any) -> Any:
    """What a place holds at present."""
    if isinstance(owner, Names):
        return {key: owner.namespace.get(key) for key in owner.keys}
    if isinstance(owner, Attributes):
        return owner.content()
    if isinstance(owner, types.CellType):
        try:
            return [owner.cell_contents]
        except ValueError:
            return []
    return owner


def put(owner: Any, copy: Any) -> None:
    """Have a place hold what it held before."""
    if isinstance(owner, Names):
        owner.namespace.update(copy)
    elif isinstance(owner, Attributes):
        owner.put(copy)
    elif isinstance(owner, types.CellType):
        owner.cell_contents = copy[0]
    elif isinstance(owner, (list, bytearray)):
        owner[:] = copy
    else:
        owner.clear()
        if isinstance(owner, collections.deque):
            owner.extend(copy)
        else:
            owner.update(copy)
