"""The source of a lesson's versions, as it runs."""

from __future__ import annotations

import dis
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

from . import agreement, golden, lesson, pictures, rounding, stories
from .lesson import Version

# What all lessons rest on; a reader of one program does not need it.
_MACHINERY = {
    module.__name__ for module in (agreement, golden, lesson, pictures, rounding, stories)
}


def version_source(version: Version) -> list[str]:
    """A version's function, and after it those of the lessons that it calls, each as a text."""
    return [textwrap.dedent(inspect.getsource(part)).rstrip() for part in _parts(version)]


def side_by_side(versions: Mapping[str, Version]) -> tuple[dict[str, str], str]:
    """Each version's own source, and what several versions share."""
    parts = {backend: version_source(version) for backend, version in versions.items()}
    several = [
        text
        for text in dict.fromkeys(text for texts in parts.values() for text in texts)
        if sum(text in texts for texts in parts.values()) > 1
    ]
    own = {
        backend: "\n\n\n".join(text for text in texts if text not in several)
        for backend, texts in parts.items()
    }
    return own, "\n\n\n".join(several)


def _parts(version: Version) -> list[Any]:
    found: dict[Any, None] = {}
    waiting: list[Any] = [version]
    while waiting:
        part = waiting.pop(0)
        if part not in found:
            found[part] = None
            waiting += _called(part)
    return list(found)


def _called(part: Any) -> Iterator[Any]:
    """The lessons' own functions and classes that a function or a class names."""
    functions = [part] if isinstance(part, FunctionType) else _methods(part)
    for function in functions:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        for value in [*cells, *_named(function)]:
            module = getattr(value, "__module__", None) or ""
            own = module.startswith(f"{__package__}.") and module not in _MACHINERY
            if own and (inspect.isfunction(value) or inspect.isclass(value)):
                yield value


def _named(function: FunctionType) -> Iterator[Any]:
    """The values of the global names in a function, and of what it takes from a module."""
    for code in _codes(function.__code__):
        instructions = list(dis.get_instructions(code))
        names = {one.argval for one in instructions if one.opname == "LOAD_GLOBAL"}
        for value in map(function.__globals__.get, sorted(names)):
            yield value
            if isinstance(value, ModuleType):
                yield from (getattr(value, name, None) for name in code.co_names)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _methods(kind: type) -> list[FunctionType]:
    values = (
        value.__func__ if isinstance(value, staticmethod) else value
        for value in vars(kind).values()
    )
    return [value for value in values if isinstance(value, FunctionType)]
