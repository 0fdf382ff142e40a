"""What each PyTorch operation does to values that are affine in the trained parameters.

A rule takes the operation's own arguments, with an `Affine` in the place of every tensor that
depends on the parameters, and returns the result's, or raises `NoRuleError`. What has no rule is
not known to be affine.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .dense import DENSE, MOVEMENTS, densely, moved
from .shapes import NoRuleError
from .terms import Affine, padded

__all__ = ["Rules", "rule_of", "why_not"]

_PRODUCT = "a product of two values that depend on trained parameters"


class Rules(NamedTuple):
    """What rules need beside an operation's arguments."""

    like: Tensor
    """A tensor of the dtype and on the device of the value that is made."""
    origin: Callable[[Tensor], str]
    """What to call a constant."""
    absolute: bool = False
    """Every constant counts by its magnitude: what comes out bounds the terms that were added."""

    def times(self, a: Any, b: Any) -> Affine:
        if isinstance(a, Affine) and isinstance(b, Affine):
            raise NoRuleError(_PRODUCT)
        value, factor = (a, b) if isinstance(a, Affine) else (b, a)
        name = self.origin(factor) if isinstance(factor, Tensor) else ""
        return value.times(self._constant(factor), self.like, name)

    def add(self, a: Any, b: Any, *, alpha: float = 1) -> Affine:
        b = self._scaled(b, alpha)
        value, other = (a, b) if isinstance(a, Affine) else (b, a)
        return value.plus(self._constant(other), self.like)

    def _constant(self, value: Any) -> Any:
        return abs(value) if self.absolute and not isinstance(value, Affine) else value

    def _scaled(self, value: Any, factor: float) -> Any:
        if factor == 1:
            return value
        return self.times(value, factor) if isinstance(value, Affine) else value * factor

    def sub(self, a: Any, b: Any, *, alpha: float = 1) -> Affine:
        return self.add(a, b, alpha=-alpha)

    def rsub(self, a: Any, b: Any, alpha: float = 1) -> Affine:
        return self.add(b, a, alpha=-alpha)

    def neg(self, a: Affine) -> Affine:
        return self.times(a, -1.0)

    def div(self, a: Any, b: Any, *, rounding_mode: str | None = None) -> Affine:
        if isinstance(b, Affine):
            raise NoRuleError("a division by a value that depends on trained parameters")
        if rounding_mode is not None:
            raise NoRuleError("a division that rounds")
        return self.times(a, 1 / b)

    def pow(self, a: Any, exponent: Any) -> Affine:
        if isinstance(a, Affine) and not isinstance(exponent, (Affine, Tensor)) and exponent == 1:
            return a
        raise NoRuleError("a power of a value that depends on trained parameters")

    def same(self, a: Affine, *_: Any, **__: Any) -> Affine:
        return a

    def reshape(self, a: Affine, size: Sequence[int]) -> Affine:
        known = 1
        for s in size:
            known *= s if s != -1 else 1
        total = 1
        for s in a.shape:
            total *= s
        return a.reshaped([total // max(known, 1) if s == -1 else s for s in size])

    def permute(self, a: Affine, dims: Sequence[int]) -> Affine:
        own = a.settled()
        order = [d % max(len(own.shape), 1) for d in dims]
        return own.each(
            lambda part: part.permute(*order, len(order)),
            [own.shape[d] for d in order],
            None if own.offset is None else own.offset.permute(order),
        )

    def transpose(self, a: Affine, first: int = 0, second: int = 1) -> Affine:
        order = list(range(len(a.shape)))
        if order and len(order) > 1:
            first, second = first % len(order), second % len(order)
            order[first], order[second] = order[second], order[first]
        return self.permute(a, order)

    def unsqueeze(self, a: Affine, dim: int) -> Affine:
        shape = list(a.shape)
        shape.insert(dim % (len(shape) + 1), 1)
        return a.reshaped(shape)

    def squeeze(self, a: Affine, dim: int | Sequence[int] | None = None) -> Affine:
        dims = range(len(a.shape)) if dim is None else [dim] if isinstance(dim, int) else dim
        gone = {d % max(len(a.shape), 1) for d in dims}
        return a.reshaped([s for d, s in enumerate(a.shape) if s != 1 or d not in gone])

    def expand(self, a: Affine, size: Sequence[int], *, implicit: bool = False) -> Affine:
        lead = len(size) - len(a.shape)
        return a.broadcast(
            [a.shape[d - lead] if s == -1 and d >= lead else s for d, s in enumerate(size)]
        )

    def slice(
        self,
        a: Affine,
        dim: int = 0,
        start: int | None = None,
        end: int | None = None,
        step: int = 1,
    ) -> Affine:
        own = a.settled()
        d = dim % len(own.shape)
        chosen = range(own.shape[d])[slice(start, end, step)]
        if not chosen:
            raise NoRuleError("a tensor without elements")
        shape = list(own.shape)
        shape[d] = len(chosen)

        def cut(part: Tensor) -> Tensor:
            if part.shape[d] == 1:
                return part
            return part[(slice(None),) * d + (slice(chosen.start, chosen.stop, chosen.step),)]

        return own.each(cut, shape, None if own.offset is None else cut_full(own.offset, d, chosen))

    def select(self, a: Affine, dim: int, index: int) -> Affine:
        own = a.settled()
        d = dim % len(own.shape)
        at = index % own.shape[d]
        return own.each(
            lambda part: part.select(d, at if part.shape[d] != 1 else 0),
            [s for i, s in enumerate(own.shape) if i != d],
            None if own.offset is None else own.offset.select(d, at),
        )

    def unbind(self, a: Affine, dim: int = 0) -> list[Affine]:
        return [self.select(a, dim, i) for i in range(a.shape[dim % len(a.shape)])]

    def split(self, a: Affine, sizes: int | Sequence[int], dim: int = 0) -> list[Affine]:
        total = a.shape[dim % len(a.shape)]
        if isinstance(sizes, int):
            sizes = [min(sizes, total - begin) for begin in range(0, total, sizes)]
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        return [self.slice(a, dim, end - size, end) for end, size in zip(ends, sizes, strict=True)]

    def sum(
        self, a: Affine, dim: Sequence[int] | None = None, keepdim: bool = False, **_: Any
    ) -> Affine:
        dims = dim if dim else range(len(a.shape))
        return a.summed(dims, keepdim, self.like)

    def mean(
        self, a: Affine, dim: Sequence[int] | None = None, keepdim: bool = False, **_: Any
    ) -> Affine:
        count = 1
        for d in dim if dim else range(len(a.shape)):
            count *= a.shape[d]
        return self.sum(a, dim, keepdim).times(1 / count, self.like)

    def cat(self, tensors: Sequence[Any], dim: int = 0) -> Affine:
        tensors = [t for t in tensors if t.shape != (0,)]
        d = dim % len(tensors[0].shape)
        sizes = [t.shape[d] for t in tensors]
        shape = [*tensors[0].shape[:d], sum(sizes), *tensors[0].shape[d + 1 :]]
        out: Affine | None = None
        offsets: list[Tensor] = []
        before = 0
        for t, size in zip(tensors, sizes, strict=True):
            offset = self._constant(t)
            if isinstance(t, Affine):
                own = t.settled()
                after = shape[d] - before - size
                terms = [padded(term, d, size, before, after, self.like) for term in own.terms]
                piece = Affine(shape, terms, None)
                out = piece if out is None else out.plus(piece, self.like)
                offset = own.offset
            offsets.append(self.like.new_zeros(t.shape) if offset is None else offset)
            before += size
        assert out is not None
        if any(not isinstance(t, Affine) or t.offset is not None for t in tensors):
            out.offset = torch.cat(offsets, d)
        return out

    def stack(self, tensors: Sequence[Any], dim: int = 0) -> Affine:
        d = dim % (len(tensors[0].shape) + 1)
        return self.cat(
            [self.unsqueeze(t, d) if isinstance(t, Affine) else t.unsqueeze(d) for t in tensors], d
        )

    def matmul(self, a: Any, b: Any) -> Affine:
        """mm, bmm, mv and dot: the sum over a's last dimension and b's last but one."""
        if isinstance(a, Affine) and isinstance(b, Affine):
            raise NoRuleError(_PRODUCT)
        vector = len(b.shape) == 1
        d = len(a.shape) - 1

        def wide(t: Any, at: int) -> Any:
            return self.unsqueeze(t, at) if isinstance(t, Affine) else t.unsqueeze(at)

        left = a if vector else wide(a, d + 1)
        right = b if vector else wide(b, d - 1)
        value, factor = (left, right) if isinstance(left, Affine) else (right, left)
        name = self.origin(b if isinstance(a, Affine) else a)
        out = value.times(self._constant(factor), self.like, name, False)
        out = out.summed([d], False, self.like)
        own = a.offset if isinstance(a, Affine) else b.offset
        if own is not None:
            fixed = self._constant(b if isinstance(a, Affine) else a)
            out.offset = own @ fixed if isinstance(a, Affine) else fixed @ own
        return out

    def addmm(self, c: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Affine:
        """addmm, addmv and baddbmm."""
        product = self.matmul(a, b) if isinstance(a, Affine) or isinstance(b, Affine) else a @ b
        return self.add(self._scaled(c, beta), product, alpha=alpha)

    def addcmul(self, c: Any, a: Any, b: Any, *, value: float = 1) -> Affine:
        product = self.times(a, b) if isinstance(a, Affine) or isinstance(b, Affine) else a * b
        return self.add(c, product, alpha=value)

    def lerp(self, a: Any, b: Any, weight: Any) -> Affine:
        if not isinstance(a, Affine) and not isinstance(b, Affine):
            return self.add(a, self.times(b - a, weight))
        difference = self.sub(b, a)
        return self.add(a, self.times(difference, weight))

    def where(self, condition: Any, a: Any, b: Any) -> Affine:
        if isinstance(condition, Affine):
            raise NoRuleError("a choice by a value that depends on trained parameters")
        kept = condition.to(self.like.dtype)
        parts = [
            value.times(mask, self.like)
            if isinstance(value, Affine)
            else torch.where(mask.bool(), value, kept.new_zeros(()))  # two floats make a float32
            for value, mask in ((a, kept), (b, 1 - kept))
        ]
        return self.add(*parts)

    def masked_fill(self, a: Any, mask: Any, value: Any) -> Affine:
        return self.where(mask, value, a)


def cut_full(offset: Tensor, d: int, chosen: range) -> Tensor:
    return offset[(slice(None),) * d + (slice(chosen.start, chosen.stop, chosen.step),)]


_NAMES: dict[str, Callable[..., Any]] = {
    **{name: getattr(Rules, name) for name in ("add", "sub", "rsub", "neg", "div", "pow")},
    **{name: getattr(Rules, name) for name in ("permute", "transpose", "unsqueeze", "squeeze")},
    **{name: getattr(Rules, name) for name in ("expand", "slice", "select", "unbind", "split")},
    **{name: getattr(Rules, name) for name in ("sum", "mean", "cat", "stack", "addmm", "addcmul")},
    **{name: getattr(Rules, name) for name in ("lerp", "where", "masked_fill")},
    **dict.fromkeys(("mul", "multiply"), Rules.times),
    **dict.fromkeys(("alias", "clone", "_to_copy", "lift_fresh", "positive"), Rules.same),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), Rules.reshape),
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), Rules.matmul),
    **dict.fromkeys(("addmv", "baddbmm"), Rules.addmm),
    "t": Rules.transpose,
    "split_with_sizes": Rules.split,
}


def rule_of(name: str) -> Callable[..., Any] | None:
    """The rule for an operation, by its name after ``aten::``."""
    if name in _NAMES:
        return _NAMES[name]
    if name in MOVEMENTS:
        return moved
    return densely if name in DENSE else None


_FRIENDLY = {
    "relu": "ReLU",
    "_softmax": "softmax",
    "_log_softmax": "log softmax",
    "linalg_vector_norm": "a norm",
    "native_layer_norm": "layer norm",
    "native_group_norm": "group norm",
    "native_batch_norm": "batch norm",
    "clamp": "clamp (or ReLU)",
    "leaky_relu": "leaky ReLU",
}


def why_not(name: str) -> str:
    """One line for an operation that has no rule."""
    return f"{_FRIENDLY.get(name, name.strip('_'))} is not affine in its input"
