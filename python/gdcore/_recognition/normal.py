"""The normal form of an affine value: features · θ[positions] + offset, with rows and outputs."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .shapes import check_size
from .terms import Affine, Term

__all__ = ["NormalForm", "normal_form"]


class NormalForm(NamedTuple):
    """prediction[i, o] = offset[i, o] + Σ_j features[i, j] θ[positions[o, j]]."""

    features: Tensor
    positions: Tensor
    offset: Tensor | None
    origin: tuple[str, ...]


class _Block(NamedTuple):
    features: Tensor | None
    """None for a single column of ones."""
    positions: Tensor
    origin: str


def normal_form(value: Affine, like: Tensor) -> NormalForm:
    """Cut the value's dimensions into rows and outputs where that takes the least work.

    A pass over the features multiplies n q k numbers; among cuts that are equal in that, the one
    that stores least, and then the one with most rows.
    """
    dims = len(value.fine)
    cuts = range(dims, -1, -1) if dims else (0,)
    used = -1
    best: tuple[tuple[int, int], int] | None = None
    for cut in cuts:
        n, k = math.prod(value.fine[:cut]), math.prod(value.fine[cut:])
        q = 0
        for term in value.terms:
            if _varies(term.positions, 0, cut):
                if used < 0:
                    used = _positions(value.terms)
                q += k * used
            else:
                q += term.positions.shape[-1] * (k if _varies(term.coefficient, cut, dims) else 1)
        cost = (n * k * q, n * q + k * q)
        if best is None or cost < best[0]:
            best = cost, cut
    assert best is not None
    cut = best[1]
    n, k = math.prod(value.fine[:cut]), math.prod(value.fine[cut:])
    blocks: list[_Block] = []
    scattered: list[Term] = []
    for term in value.terms:
        if _varies(term.positions, 0, cut):
            scattered.append(term)
        else:
            _add(blocks, _block(term, value.fine, cut, n, k))
    if scattered:
        phi, positions = Affine(value.fine, scattered, None).dense(like)
        u = len(positions)
        check_size(n, k * u)
        index = _diagonal(positions.reshape(1, u).expand(k, u))
        names = tuple(dict.fromkeys(term.origin for term in scattered))
        _add(blocks, _Block(phi.reshape(n, k * u), index, " + ".join(names)))
    offset = value.offset
    if offset is not None:
        offset = offset.expand(value.shape).reshape(n, k)
    return NormalForm(*_joined(blocks, n, like), offset, tuple(block.origin for block in blocks))


def _varies(part: Tensor | None, start: int, stop: int) -> bool:
    return part is not None and any(size != 1 for size in part.shape[start:stop])


def _positions(terms: Sequence[Term]) -> int:
    return len(torch.cat([term.positions.reshape(-1) for term in terms]).unique())


def _diagonal(index: Tensor) -> Tensor:
    """(k, r) positions as (k, k r): output o sees only the o-th group of columns."""
    k, r = index.shape
    if k == 1:
        return index
    check_size(k, k, r)
    wide = index.new_full((k, k, r), -1)
    each = torch.arange(k, device=index.device)
    wide[each, each] = index
    return wide.reshape(k, k * r)


def _block(term: Term, fine: tuple[int, ...], cut: int, n: int, k: int) -> _Block:
    c, index, origin = term
    r = index.shape[-1]
    index = index.expand(*(1,) * cut, *fine[cut:], r).reshape(k, r)
    if c is None:
        return _Block(None, index, origin) if r == 1 else _ones(index, n, origin)
    if not _varies(c, cut, len(fine)):
        wide = (*fine[:cut], *c.shape[cut:-1], r)
        if c.shape != wide:
            check_size(n, r)
        return _Block(c.expand(wide).reshape(n, r), index, origin)
    check_size(n, k, r)
    return _Block(c.expand(*fine, r).reshape(n, k * r), _diagonal(index), origin)


def _ones(index: Tensor, n: int, origin: str) -> _Block:
    """Σ_r θ[index[o, r]]: columns of ones, one for each r."""
    r = index.shape[-1]
    check_size(n, r)
    return _Block(torch.ones((1, 1), device=index.device).expand(n, r), index, origin)


def _same_memory(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return (
        a.data_ptr() == b.data_ptr()
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.dtype == b.dtype
    )


def _add(blocks: list[_Block], new: _Block) -> None:
    """Add a block; outputs that read the same features at different places share its columns."""
    for i, block in enumerate(blocks):
        if not _same_memory(block.features, new.features):
            continue
        if not bool(((block.positions >= 0) & (new.positions >= 0)).any()):
            blocks[i] = block._replace(positions=torch.maximum(block.positions, new.positions))
            return
    blocks.append(new)


def _joined(blocks: list[_Block], n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    columns = [
        like.new_ones(n, 1) if block.features is None else block.features.to(like.dtype)
        for block in blocks
    ]
    if len(blocks) == 1:
        return columns[0], blocks[0].positions
    return torch.cat(columns, 1), torch.cat([block.positions for block in blocks], 1)
