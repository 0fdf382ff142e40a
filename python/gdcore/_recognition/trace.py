"""One real forward, watched: which tensors depend on the trained parameters, and how.

A dispatch mode sits below autograd and sees the operations that really run, whatever Python code
called them: closures, parametrisations, in-place forms. What cannot be repeated by a formula
(random numbers, writes to what was there before, a parameter's value read by Python) ends the
forward before it happens.
"""

import linecache
import os
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .operations import Operation
from .provenance import Provenance, memory_of
from .rules import Rules, why_not
from .shapes import NoRuleError
from .terms import Affine, leaf

__all__ = ["Neither", "RefusedError", "Tracer", "source_line"]

_PACKAGE = os.path.dirname(os.path.dirname(__file__))
_INNER = (os.path.dirname(torch.__file__) + os.sep, _PACKAGE + os.sep)


class Neither(NamedTuple):
    """Why a value that depends on trained parameters is not known to be affine in them."""

    reason: str
    where: str | None


class RefusedError(BaseException):
    """Ends a forward; no ``except Exception`` of the user's holds it up."""


def source_line() -> str | None:
    """The innermost frame that is neither PyTorch's nor gdcore's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code.co_filename
        if not code.startswith(_INNER):
            line = linecache.getline(code, frame.f_lineno, frame.f_globals).strip()
            return f"{os.path.basename(code)}:{frame.f_lineno}" + (f": {line}" if line else "")
        frame = frame.f_back
    return None


_operations: dict[Any, Operation] = {}


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


class Tracer(TorchDispatchMode):
    """Labels the results of operations, and refuses what a formula could not repeat."""

    def __init__(
        self,
        parameters: Sequence[Tensor],
        xs: Sequence[Tensor],
        names: dict[int, str],
        absolute: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.absolute = absolute
        """Whether the labels count every constant by its magnitude."""
        self.refusal: Neither | None = None
        self.labels: dict[int, Affine | Neither] = {}
        self.performed: set[str] = set()
        """The names of the operations that ran."""
        self.reads = False
        """Whether Python saw the value of a tensor, so that it may do something else for others."""
        self.input = Provenance(xs)
        self.names = names
        """What to call a constant, by its id."""
        self.alive: list[Tensor] = list(parameters)
        self._parameters = {id(parameter) for parameter in parameters}
        self._trained = {memory_of(parameter) for parameter in parameters}
        self._created: dict[int, list[int]] = {}
        self._constants: set[int] = set()
        self._used: list[tuple[Tensor, int]] = []
        start = 0
        for parameter in parameters:
            self.labels[id(parameter)] = leaf(parameter, start)
            start += parameter.numel()

    def refuse(self, reason: str) -> NoReturn:
        if self.refusal is None:
            self.refusal = Neither(reason, source_line())
        raise RefusedError

    def label(self, tensor: Tensor) -> "Affine | Neither | None":
        """None for a constant."""
        found = self.labels.get(id(tensor))
        if found is None:
            if memory_of(tensor) in self._trained:
                return Neither("a parameter's memory is read past autograd", source_line())
            if tensor.grad_fn is not None and id(tensor) not in self._constants:
                return Neither("a value with a gradient, computed out of sight", source_line())
            return None
        if isinstance(found, Affine):
            if not tensor.requires_grad:
                return Neither("no gradient flows through this value", source_line())
            if tensor._backward_hooks:
                return Neither("a hook on a tensor", source_line())
        return found

    def has_made(self, tensor: Tensor) -> bool:
        """Whether the forward itself has made a tensor's memory."""
        return memory_of(tensor) in self._created

    def captured_unchanged(self) -> bool:
        """Whether no constant that became a feature was written to afterwards."""
        return all(tensor._version == version for tensor, version in self._used)

    def _origin(self, tensor: Tensor) -> str:
        self._used.append((tensor, tensor._version))
        return self.names.get(id(tensor), "constant")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        operation = _operations.get(func)
        if operation is None:
            operation = _operations[func] = Operation(func)
        self.performed.add(operation.name)
        self.reads |= operation.reads or operation.sized_by_value
        if operation.random:
            self.refuse(f"random numbers ({operation.name.strip('_')})")
        given = list(_tensors(args))
        if kwargs:
            given += _tensors(list(kwargs.values()))
        labels = {id(t): label for t in given if (label := self.label(t)) is not None}
        from_input = self.input.follow(operation, args, given, bool(labels))
        if labels and (operation.reads or operation.sized_by_value):
            self.refuse("Python reads a value that depends on trained parameters")
        if (
            labels
            and operation.name == "index"
            and any(id(t) in labels for t in _tensors(args[1:]))
        ):
            self.refuse("an index that depends on trained parameters")
        for i, name in operation.written:
            self._check_write(args[i] if i < len(args) else kwargs.get(name), labels)
        if operation.name.endswith("batch_norm") and any(a is True for a in args):
            self.refuse("batch norm in training mode keeps running statistics")
        out = func(*args, **kwargs)
        if labels and not all(isinstance(o, Tensor) for o in _flat(out)):
            self.refuse("Python reads a value that depends on trained parameters")
        self._record(operation, func, args, kwargs, labels, out)
        if from_input:
            self.input.made(_tensors(_flat(out)), {tensor.dtype for tensor in given})
        return out

    def _check_write(self, target: Any, labels: dict[int, Any]) -> None:
        for tensor in _tensors([target]):
            memory = memory_of(tensor)
            if memory in self._trained:
                self.refuse("the forward writes to a parameter")
            if memory not in self._created:
                self.refuse("the forward writes to a tensor that was there before it")
            if labels or id(tensor) in self.labels:
                stale = Neither("changed in place through another view of it", source_line())
                self.labels.update((i, stale) for i in self._created[memory] if i != id(tensor))

    def _record(
        self,
        operation: Operation,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        labels: dict[int, "Affine | Neither"],
        out: Any,
    ) -> None:
        results = list(_tensors(_flat(out)))
        self.alive += results
        for result in results:
            memory = memory_of(result)
            if not operation.is_view and not operation.written:
                self._created.setdefault(memory, [])
            if memory in self._created:
                self._created[memory].append(id(result))
        if not labels or operation.by_shape:
            self._constants.update(map(id, results))
            if not operation.written:
                self._name(operation, args, results)
            return
        label = self._labelled(operation, func, args, kwargs, labels, results)
        if isinstance(label, list) and len(label) == len(results):
            self.labels.update((id(r), one) for r, one in zip(results, label, strict=True))
        else:
            self.labels.update((id(r), label) for r in results)  # type: ignore[misc]

    def _labelled(
        self,
        operation: Operation,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        labels: dict[int, "Affine | Neither"],
        results: list[Tensor],
    ) -> "Affine | Neither | list[Affine]":
        for label in labels.values():
            if isinstance(label, Neither):
                return label
        if operation.name == "detach":
            return Neither("detach() cuts the gradient", source_line())
        if not torch.is_grad_enabled():
            return Neither("computed without gradient (no_grad)", source_line())
        if operation.written and not operation.in_place:
            return Neither(f"{operation.name} writes in place", source_line())
        rule = operation.rule
        if rule is None or not results:
            return Neither(why_not(operation.value_name), source_line())
        like = results[0]
        if like.dtype not in (torch.float32, torch.float64):
            dtype = str(like.dtype).removeprefix("torch.")
            return Neither(f"a value of dtype {dtype}", source_line())

        def put(value: Any) -> Any:
            if isinstance(value, Tensor):
                if self.absolute and operation.runs_itself and value.is_floating_point():
                    return labels.get(id(value), value.abs())
                return labels.get(id(value), value)
            if isinstance(value, (list, tuple)) and any(True for _ in _tensors(value)):
                return [put(v) for v in value]
            return value

        values = [put(value) for value in args]
        try:
            if operation.runs_itself:
                made = rule(func, like, *values, **kwargs)
            else:
                keywords = {key: put(value) for key, value in kwargs.items()}
                made = rule(Rules(like, self._origin, self.absolute), *values, **keywords)
        except NoRuleError as error:
            return Neither(str(error), source_line())
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
            # A form of the operation that its rule was not written for: not known to be affine.
            return Neither(why_not(operation.value_name), source_line())
        checked = made if isinstance(made, list) else [made]
        if [tuple(one.shape) for one in checked] != [tuple(r.shape) for r in results]:
            return Neither(why_not(operation.value_name), source_line())
        return made  # type: ignore[no-any-return]

    def _name(self, operation: Operation, args: tuple[Any, ...], results: list[Tensor]) -> None:
        """Call a constant made from named ones by its formula, while that is short."""
        names = [self.names.get(id(a)) for a in args[:2] if isinstance(a, Tensor)]
        if len(results) != 1 or not names or None in names:
            return
        numbers = [a for a in args[:2] if isinstance(a, (int, float))]
        sign = {"mul": "*", "add": "+", "sub": "-", "div": "/", "pow": "**"}.get(operation.name)
        if operation.is_view or operation.name in ("clone", "_to_copy", "_unsafe_view"):
            name = str(names[0])
        elif sign is not None and len(names) + len(numbers) == 2:
            words = [self.names[id(a)] if isinstance(a, Tensor) else f"{a:g}" for a in args[:2]]
            name = f" {sign} ".join(f"({word})" if " " in word else word for word in words)
        else:
            name = f"{operation.name}({', '.join(map(str, names))})"
        self.names[id(results[0])] = name if len(name) <= 30 else "constant"


def _flat(out: Any) -> Sequence[Any]:
    return out if isinstance(out, (list, tuple)) else (out,)
