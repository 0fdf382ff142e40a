"""Values that are affine in the trained parameters θ, as sums of structured terms.

A term of a value of shape S is Σ_r coefficient[s, r] · θ[positions[s, r]]. Its two tensors have the
dimensions of S and one more, r, and size 1 along every dimension where they do not vary: so a
linear layer's (n, k) prediction is the coefficient x as (n, 1, d) and its weight's positions as
(1, k, d), and nothing of size n k d is ever formed. A position of -1 stands for nothing.

Merging dimensions would lose that, so a reshape that only merges is put off: the terms keep the
finer shape until an operation asks for the value's own.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .shapes import NoRuleError, broadcast, check_size, groups, regroup

__all__ = ["Affine", "Term", "leaf", "padded"]

_SMALL = 4096
"""Elements up to which two index tensors are compared for equality."""


class Term(NamedTuple):
    coefficient: Tensor | None
    """None where it is 1 everywhere; along r too its size may be 1."""
    positions: Tensor
    origin: str


class Affine:
    """offset + Σ terms, of one shape, with the shape that its terms have."""

    __slots__ = ("fine", "offset", "shape", "terms")

    def __init__(
        self,
        shape: Sequence[int],
        terms: list[Term],
        offset: Tensor | None,
        fine: Sequence[int] | None = None,
    ) -> None:
        self.shape = tuple(shape)
        self.terms = terms
        self.offset = offset
        self.fine = self.shape if fine is None else tuple(fine)

    def each(
        self, change: Callable[[Tensor], Tensor], shape: Sequence[int], offset: Tensor | None
    ) -> "Affine":
        """The same change of dimensions, made to every tensor of every term."""
        terms = [
            Term(None if c is None else change(c), change(index), origin)
            for c, index, origin in self.terms
        ]
        return Affine(shape, terms, offset)

    def reshaped(self, shape: Sequence[int]) -> "Affine":
        if 0 in shape:
            raise NoRuleError("a tensor without elements")
        runs = groups(self.fine, shape)

        def keep(new: list[int]) -> bool:
            return len(new) <= 1

        fine: list[int] = []
        for old, new in runs:
            fine += old if keep(new) else new
        out = self.each(
            lambda part: regroup(part, runs, keep),
            shape,
            None if self.offset is None else self.offset.reshape(tuple(shape)),
        )
        out.fine = tuple(fine)
        return out

    def settled(self) -> "Affine":
        """With terms of the value's own shape."""
        if self.fine == self.shape:
            return self
        runs = groups(self.fine, self.shape)
        return self.each(
            lambda part: regroup(part, runs, lambda new: False), self.shape, self.offset
        )

    def broadcast(self, shape: Sequence[int]) -> "Affine":
        """Expanded to a shape, which costs the terms nothing."""
        if self.shape == tuple(shape):
            return self
        own = self.settled()
        ones = (1,) * (len(shape) - len(own.shape))
        return own.each(
            lambda part: part.reshape(*ones, *part.shape),
            shape,
            None if own.offset is None else own.offset.expand(tuple(shape)),
        )

    def plus(self, other: "Affine | Tensor | float", like: Tensor) -> "Affine":
        if isinstance(other, Affine):
            shape = broadcast(self.shape, other.shape)
            if self.shape == other.shape and self.fine == other.fine:
                a, b = self, other
            else:
                a, b = self.broadcast(shape).settled(), other.broadcast(shape).settled()
            offset = a.offset if b.offset is None else b.offset
            if a.offset is not None and b.offset is not None:
                offset = a.offset + b.offset
            return Affine(shape, _merged(a.terms, b.terms), offset, a.fine)
        if isinstance(other, Tensor):
            shape = broadcast(self.shape, other.shape)
            a = self.broadcast(shape)
            offset = other.expand(shape) if a.offset is None else a.offset + other
            return Affine(shape, a.terms, offset, a.fine)
        return self.plus(like.new_full((), other), like)

    def times(
        self, factor: Tensor | float, like: Tensor, origin: str = "", offset: bool = True
    ) -> "Affine":
        """The product with a constant, broadcast; coefficients have the dtype of `like`."""
        if not isinstance(factor, Tensor):
            ones = (1,) * (len(self.fine) + 1)
            terms = [
                Term(
                    like.new_full(ones, factor) if c is None else c * factor,
                    index,
                    f"{factor:g} * {name}" if name != "1" else f"{factor:g}",
                )
                for c, index, name in self.terms
            ]
            moved = None if self.offset is None else self.offset * factor
            return Affine(self.shape, terms, moved, self.fine)
        shape = broadcast(self.shape, factor.shape)
        own = self.broadcast(shape).settled()
        ones = (1,) * (len(shape) - factor.dim())
        wide = factor.reshape(*ones, *factor.shape, 1)
        terms = []
        for c, index, name in own.terms:
            if c is None:
                terms.append(Term(wide.to(like.dtype), index, origin))
                continue
            check_size(*broadcast(c.shape, wide.shape))
            terms.append(
                Term(c * wide, index, name if origin in ("", name) else f"{origin} * {name}")
            )
        moved = None if own.offset is None or not offset else own.offset * factor
        return Affine(shape, terms, moved)

    def summed(self, dims: Sequence[int], keepdim: bool, like: Tensor) -> "Affine":
        own = self.settled()
        dims = sorted(d % max(len(own.shape), 1) for d in dims)
        terms = own.terms
        for d in dims:
            terms = [_sum_term(term, d, own.shape[d], like) for term in terms]
        kept = [1 if d in dims else size for d, size in enumerate(own.shape)]
        shape = kept if keepdim else [s for d, s in enumerate(own.shape) if d not in dims]

        def drop(part: Tensor) -> Tensor:
            left = [s for d, s in enumerate(part.shape[:-1]) if d not in dims]
            return part.reshape(*left, part.shape[-1])

        offset = own.offset if own.offset is None or not dims else own.offset.sum(dims, keepdim)
        out = Affine(kept, terms, None)
        out = out if keepdim else out.each(drop, shape, None)
        out.offset = offset
        return out

    def dense(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Φ (elements, u) and the u positions in θ that its columns belong to."""
        total = math.prod(self.shape)
        positions = torch.cat([index.reshape(-1) for _, index, _ in self.terms]).unique()
        positions = positions[positions >= 0]
        check_size(total, max(len(positions), 1))
        filled = like.new_zeros(total, len(positions) + 1)
        for c, index, _ in self.terms:
            r = index.shape[-1]
            check_size(total, r)
            at = torch.searchsorted(positions, index.contiguous()).masked_fill(
                index < 0, len(positions)
            )
            at = at.expand(*self.fine, r).reshape(total, r)
            value = like.new_ones(()) if c is None else c.to(like.dtype)
            filled.scatter_add_(1, at, value.expand(*self.fine, r).reshape(total, r))
        return filled[:, :-1], positions


def _sum_term(term: Term, d: int, size: int, like: Tensor) -> Term:
    """Sum over one dimension, kept with size 1."""
    c, index, origin = term
    if index.shape[d] == 1:
        if c is not None and c.shape[d] == size:
            c = c.sum(d, keepdim=True)
        elif c is not None:
            c = c * size
        elif size != 1:
            c = like.new_full((1,) * index.dim(), float(size))
        return Term(c, index, origin)

    r = index.shape[-1]

    def into_r(part: Tensor) -> Tensor:
        wide = [*part.shape[:-1], r]
        wide[d] = size
        check_size(*wide)
        return part.expand(wide).movedim(d, -2).flatten(-2).unsqueeze(d)

    return Term(None if c is None else into_r(c), into_r(index), origin)


def _same(a: Tensor, b: Tensor) -> bool:
    if a is b:
        return True
    return a.shape == b.shape and a.numel() <= _SMALL and torch.equal(a, b)


def _merged(first: list[Term], second: list[Term]) -> list[Term]:
    """The terms of a sum; two with the same positions become one."""
    terms = list(first)
    for c, index, origin in second:
        for i, (own, other, name) in enumerate(terms):
            if c is not None and own is not None and _same(other, index):
                check_size(*broadcast(own.shape, c.shape))
                terms[i] = Term(own + c, other, name if name == origin else f"{name} + {origin}")
                break
        else:
            terms.append(Term(c, index, origin))
    return terms


def padded(term: Term, d: int, size: int, before: int, after: int, like: Tensor) -> Term:
    """A term of `size` along a dimension, with nothing before and after it there."""
    c, index, origin = term
    edges = [0, 0] * (index.dim() - 1 - d) + [before, after]
    if size == 1 or index.shape[d] != 1:
        wide = list(index.shape)
        wide[d] = size
        index = F.pad(index.expand(wide), edges, value=-1)
        if c is not None and c.shape[d] != 1:
            c = F.pad(c, edges)
        return Term(c, index, origin)
    c = like.new_ones((1,) * index.dim()) if c is None else c
    wide = list(c.shape)
    wide[d] = size
    return Term(F.pad(c.expand(wide), edges), index, origin)


def leaf(parameter: Tensor, start: int) -> Affine:
    """A trained parameter whose elements begin at a position in θ."""
    index = torch.arange(start, start + parameter.numel(), device=parameter.device)
    return Affine(parameter.shape, [Term(None, index.reshape(*parameter.shape, 1), "1")], None)
