"""What a model reaches: the names of its tensors, hooks, and Python state it could change."""

import random
import types
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules import module as torch_module

from .._seen import Seen
from .places import (
    CONTAINERS,
    MANY,
    Attributes,
    Names,
    callables,
    content,
    hidden,
    owners,
    put,
    worth,
)

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
_MOST = 2000
"""Objects that are looked at, modules aside."""


class Reach:
    """Walks from a model through modules, closures, globals that its code names, and attributes."""

    def __init__(self, model: Any) -> None:
        self.names: dict[int, str] = {}
        self.modules: list[torch.nn.Module] = []
        self._seen: dict[int, Any] = {}
        self._copies: list[tuple[Any, Any]] = []
        self._hidden: str | None = None
        self._walk(model, "", _DEPTH)
        self._random = _random_states()

    def hindrance(self) -> str | None:
        """A hook, a compiled part or an iterator, in words: what does more than give values."""
        return hindrance_in(self.modules) or self._hidden

    def unwatched(self) -> str | None:
        """State whose changes `watch` cannot notice, in words."""
        for owner, _ in self._copies:
            if isinstance(owner, CONTAINERS) and not isinstance(owner, (list, dict)):
                return f"a {type(owner).__name__}, which cannot be watched from step to step"
        return None

    def changed(self) -> str | None:
        """How the state differs from what it was when this was made, in words."""
        if _random_states() != self._random:
            return "random numbers (Python's or NumPy's)"
        if any(not _equal(content(owner), copy) for owner, copy in self._copies):
            return "it changes state of its own (an attribute, say)"
        return None

    def restore(self) -> None:
        """Put the state back as it was."""
        for owner, copy in self._copies:
            if not _equal(content(owner), copy):
                put(owner, copy)
        if _random_states() != self._random:
            of_python, (kind, keys, *rest) = self._random
            random.setstate(of_python)
            np.random.set_state((kind, np.frombuffer(keys, np.uint32), *rest))

    def watch(self, seen: Seen) -> None:
        """Have every object that was met remembered, so that putting another there is noticed."""
        for owner, _ in self._copies:
            if isinstance(owner, types.CellType):
                seen.attribute(owner, "cell_contents")
            elif isinstance(owner, Names):
                for key in owner.keys:
                    seen.item(owner.namespace, key)
            elif isinstance(owner, Attributes):
                for key in owner.stable():
                    seen.attribute(owner.owner, key)
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
                seen.attribute(value, "__kwdefaults__")
            elif not isinstance(value, type):
                seen.type(value)

    def _keep(self, owner: Any) -> None:
        now = content(owner)
        self._copies.append((owner, now if owner is not now else now.copy()))

    def _walk(self, value: Any, name: str, depth: int) -> None:
        if isinstance(value, (Tensor, np.ndarray)):
            self.names.setdefault(id(value), name)
            return
        if depth < 0 or id(value) in self._seen or not worth(value):
            return
        if len(self._seen) > _MOST and not isinstance(value, torch.nn.Module):
            return
        self._seen[id(value)] = value
        self._hidden = self._hidden or hidden(value)
        for part, owner in owners(value):
            self._keep(owner)
            for key, child in part:
                self._walk(child, f"{name}.{key}" if name and key else name or key, depth - 1)
        if isinstance(value, torch.nn.Module):
            self._module(value, f"{name}." if name else "", depth)
        for child in callables(value):
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


def _equal(now: Any, before: Any) -> bool:
    if len(now) != len(before) or len(before) > MANY:
        return len(now) == len(before)
    if isinstance(before, (set, bytearray)):
        return bool(now == before)
    if isinstance(before, dict):
        return all(key in now and _one(now[key], value) for key, value in before.items())
    return all(map(_one, now, before))


def _one(now: Any, before: Any) -> bool:
    return now is before or (
        type(now) is type(before) and isinstance(now, (int, float, str)) and now == before
    )


def _random_states() -> tuple[Any, Any]:
    """Those of Python's and NumPy's generators that everyone shares; torch's are watched in use."""
    state: Any = np.random.get_state()
    kind, keys, *rest = state
    return random.getstate(), (kind, keys.tobytes(), *rest)
