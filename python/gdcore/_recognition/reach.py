"""What a model reaches: the names of its tensors, hooks, and Python state it could change."""

import functools
import random
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules import module as torch_module

from .._seen import Seen

__all__ = ["Reach", "hindrance_in"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)
_DEPTH = 4
"""How many steps from the model state is looked for."""
_CONTAINERS = (list, dict, set)
_MANY = 1000
"""Elements beyond which a container is data: only its length is kept in mind."""
_MOST = 2000
"""Objects that are looked at, modules aside."""


class Reach:
    """Walks from a model through modules, closures, globals that its code names, and attributes."""

    def __init__(self, model: Any) -> None:
        self.names: dict[int, str] = {}
        self.modules: list[torch.nn.Module] = []
        self._seen: dict[int, Any] = {}
        self._copies: list[tuple[Any, Any]] = []
        self._walk(model, "", _DEPTH)
        self._random = _random_states()

    def hindrance(self) -> str | None:
        """A hook or a compiled part, in words: what is there for more than its values."""
        return hindrance_in(self.modules)

    def changed(self) -> str | None:
        """How the state differs from what it was when this was made, in words."""
        if _random_states() != self._random:
            return "random numbers (Python's or NumPy's)"
        if any(not _equal(_content(owner), copy) for owner, copy in self._copies):
            return "it changes state of its own (an attribute, say)"
        return None

    def restore(self) -> None:
        """Put the state back as it was."""
        for owner, copy in self._copies:
            if not _equal(_content(owner), copy):
                _put(owner, copy)
        if _random_states() != self._random:
            of_python, (kind, keys, *rest) = self._random
            random.setstate(of_python)
            np.random.set_state((kind, np.frombuffer(keys, np.uint32), *rest))

    def watch(self, seen: Seen) -> None:
        """Have every object that was met remembered, so that putting another there is noticed."""
        for owner, _ in self._copies:
            if isinstance(owner, types.CellType):
                seen.attribute(owner, "cell_contents")
            elif isinstance(owner, _Globals):
                for key in owner.keys:
                    seen.item(owner.namespace, key)
            elif isinstance(owner, list):
                seen.elements(owner)
            elif isinstance(owner, dict):
                seen.mapping(owner)
        for hooks in _GLOBAL_HOOKS:
            seen.empty(hooks)
        for module in self.modules:
            for kind in _HOOKS:
                seen.empty(module.__dict__[kind])
            seen.attribute(type(module), "forward")
        for value in self._seen.values():
            if isinstance(value, types.FunctionType):
                seen.attribute(value, "__code__")
                seen.attribute(value, "__defaults__")

    def _keep(self, owner: Any) -> None:
        content = _content(owner)
        self._copies.append((owner, content if owner is not content else content.copy()))

    def _walk(self, value: Any, name: str, depth: int) -> None:
        if isinstance(value, Tensor):
            self.names.setdefault(id(value), name)
            return
        if depth < 0 or id(value) in self._seen or not _worth(value):
            return
        if len(self._seen) > _MOST and not isinstance(value, torch.nn.Module):
            return
        self._seen[id(value)] = value
        for part, owner in _owners(value):
            self._keep(owner)
            for key, child in part:
                self._walk(child, f"{name}.{key}" if name and key else name or key, depth - 1)
        if isinstance(value, torch.nn.Module):
            self._module(value, f"{name}." if name else "", depth)
        for child in _callables(value):
            self._walk(child, name, depth - 1)

    def _module(self, module: torch.nn.Module, prefix: str, depth: int) -> None:
        self.modules.append(module)
        for registered in (module._parameters, module._buffers):
            for key, tensor in registered.items():
                if tensor is not None:
                    self.names.setdefault(id(tensor), prefix + key)
        for key, child in module._modules.items():
            if child is not None:  # however deep: every module counts for its hooks
                self._walk(child, prefix + key, max(depth, 1))


def hindrance_in(modules: Iterable[torch.nn.Module]) -> str | None:
    """The first hook or compiled part among modules, in words."""
    if any(_GLOBAL_HOOKS):
        return "a hook on all modules"
    for module in modules:
        state = module.__dict__
        if isinstance(module, torch.jit.ScriptModule) or "_orig_mod" in state["_modules"]:
            return f"a compiled module ({type(module).__name__})"
        for kind in _HOOKS:
            if state.get(kind):
                words = kind.strip("_").replace("_", " ").removesuffix("s")
                return f"a {words} on {type(module).__name__}"
    return None


def _worth(value: Any) -> bool:
    """Whether a value could lead to tensors or hold state of the user's."""
    if value is None or isinstance(value, (int, float, str, bytes, type, types.ModuleType)):
        return False
    if isinstance(value, torch.nn.Module):
        return True
    return not (getattr(type(value), "__module__", "") or "").startswith(("torch.", "numpy"))


def _owners(value: Any) -> Iterator[tuple[list[tuple[str, Any]], Any]]:
    """The places that hold a value's parts, each with the named parts in it."""
    if isinstance(value, types.FunctionType):
        for key, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield [(key, cell.cell_contents)], cell
            except ValueError:  # not assigned yet
                continue
        used = _Globals(value)
        if used.keys:
            yield [(key, value.__globals__.get(key)) for key in used.keys], used
        defaults = zip(
            value.__code__.co_varnames[: value.__code__.co_argcount][::-1],
            (value.__defaults__ or ())[::-1],
            strict=False,
        )
        for key, default in defaults:
            if isinstance(default, (Tensor, torch.nn.Module, *_CONTAINERS)):
                yield [(key, default)], default if isinstance(default, _CONTAINERS) else {}
    elif isinstance(value, torch.nn.Module):
        state = value.__dict__
        own = [(k, v) for k, v in state.items() if not k.startswith("_") and k != "training"]
        yield own, state
        for registered in ("_parameters", "_buffers", "_modules"):
            if type(state.get(registered)) is dict:  # not where it is compiled
                yield [], state[registered]
    elif isinstance(value, _CONTAINERS) and len(value) > _MANY:
        yield [], value
    elif isinstance(value, dict):
        yield [(str(key), child) for key, child in value.items()], value
    elif isinstance(value, list):
        yield [(str(i), child) for i, child in enumerate(value)], value
    elif isinstance(value, set):
        yield [], value
    elif isinstance(value, tuple) and len(value) <= _MANY:
        yield [(str(i), child) for i, child in enumerate(value)], {}
    elif isinstance(getattr(value, "__dict__", None), dict):
        yield list(value.__dict__.items()), value.__dict__


def _callables(value: Any) -> Iterator[Any]:
    """The Python functions that calling a value runs, and what they are bound to."""
    if isinstance(value, types.MethodType):
        yield value.__self__
        yield value.__func__
    elif isinstance(value, functools.partial):
        yield value.func
        yield list(value.args)
        yield dict(value.keywords)
    elif isinstance(value, torch.nn.Module):
        kind = type(value)
        if not kind.__module__.startswith("torch."):
            yield kind.forward
    elif not isinstance(value, (types.FunctionType, types.BuiltinFunctionType, *_CONTAINERS)):
        for kind in type(value).__mro__:
            call = kind.__dict__.get("__call__")
            if isinstance(call, types.FunctionType):
                yield call
                break


class _Globals:
    """The global variables that a function's code names."""

    def __init__(self, function: types.FunctionType) -> None:
        self.namespace = function.__globals__
        self.keys = [
            key
            for key in _named(function.__code__)
            if key in self.namespace
            and not isinstance(self.namespace[key], (types.ModuleType, type))
        ]


def _named(code: types.CodeType) -> list[str]:
    """The global names in a function's code and in that of the functions inside it."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _named(constant)
    return names


def _content(owner: Any) -> Any:
    if isinstance(owner, _Globals):
        return {key: owner.namespace.get(key) for key in owner.keys}
    if isinstance(owner, types.CellType):
        try:
            return [owner.cell_contents]
        except ValueError:
            return []
    return owner


def _equal(now: Any, before: Any) -> bool:
    if len(now) != len(before) or len(before) > _MANY:
        return len(now) == len(before)
    if isinstance(before, set):
        return bool(now == before)
    if isinstance(before, dict):
        return all(key in now and _one(now[key], value) for key, value in before.items())
    return all(map(_one, now, before))


def _one(now: Any, before: Any) -> bool:
    return now is before or (
        type(now) is type(before) and isinstance(now, (int, float, str)) and now == before
    )


def _put(owner: Any, copy: Any) -> None:
    if isinstance(owner, _Globals):
        owner.namespace.update(copy)
    elif isinstance(owner, types.CellType):
        owner.cell_contents = copy[0]
    elif isinstance(owner, list):
        owner[:] = copy
    else:
        owner.clear()
        owner.update(copy)


def _random_states() -> tuple[Any, Any]:
    """Those of Python's and NumPy's generators that everyone shares; torch's are watched in use."""
    state: Any = np.random.get_state()
    kind, keys, *rest = state
    return random.getstate(), (kind, keys.tobytes(), *rest)
