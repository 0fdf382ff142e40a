"""Operations that move elements, or that are affine without any structure worth keeping.

A movement is run once, on the numbers of the elements instead of on the elements. An operation of
the other kind is run on every column of Φ, which is why its size is bounded.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .shapes import NoRuleError, check_size
from .terms import Affine, Term

__all__ = ["DENSE", "MOST_COLUMNS", "MOVEMENTS", "densely", "moved"]

MOST_COLUMNS = 1024
"""Parameter elements up to which an operation is run on every column of Φ."""

_MOVING = """
    index index_select embedding gather take flip roll repeat diagonal unfold tril triu
    constant_pad_nd diag_embed rot90 pixel_shuffle pixel_unshuffle channel_shuffle
    reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d
"""
MOVEMENTS = frozenset(_MOVING.split())
"""Every element of the result is one element of the first argument, or zero."""

DENSE: dict[str, tuple[frozenset[int], ...]] = {
    "convolution": (frozenset({0, 2}), frozenset({1, 2})),
    "cumsum": (frozenset({0}),),
    "avg_pool2d": (frozenset({0}),),
    "avg_pool3d": (frozenset({0}),),
    "_adaptive_avg_pool2d": (frozenset({0}),),
    "im2col": (frozenset({0}),),
    "trace": (frozenset({0}),),
    "upsample_nearest1d": (frozenset({0}),),
    "upsample_nearest2d": (frozenset({0}),),
    "upsample_linear1d": (frozenset({0}),),
    "upsample_bilinear2d": (frozenset({0}),),
    "index_add": (frozenset({0, 3}),),
    "scatter_add": (frozenset({0, 3}),),
}
"""Operations that are affine in the arguments at these positions together."""


def moved(func: Callable[..., Any], like: Tensor, value: Any, *args: Any, **kwargs: Any) -> Affine:
    """An operation that puts elements elsewhere, or zeros."""
    if not isinstance(value, Affine) or any(isinstance(a, Affine) for a in args):
        raise NoRuleError("an index that depends on trained parameters")
    if func._schema.name == "aten::embedding":  # type: ignore[attr-defined]
        args = (*args[:1], *(False for _ in args[1:]))
    fill = args[1] if func._schema.name == "aten::constant_pad_nd" and len(args) > 1 else 0  # type: ignore[attr-defined]
    if fill != 0:
        raise NoRuleError("a padding with something else than zero")
    own = value.settled()
    total = math.prod(own.shape)
    numbers = torch.arange(1, total + 1, device=like.device).reshape(own.shape)
    at = func(numbers, *args, **kwargs)
    if 0 in at.shape:
        raise NoRuleError("a tensor without elements")
    none = at == 0
    flat = (at - 1).clamp(min=0)
    terms = []
    for c, index, origin in own.terms:
        r = index.shape[-1]
        check_size(*at.shape, r)
        check_size(total, r)
        there = _taken(index, own.shape, flat).masked_fill(none.unsqueeze(-1), -1)
        terms.append(Term(None if c is None else _taken(c, own.shape, flat), there, origin))
    offset = None if own.offset is None else func(own.offset, *args, **kwargs)
    return Affine(at.shape, terms, offset)


def _taken(part: Tensor, shape: Sequence[int], at: Tensor) -> Tensor:
    r = part.shape[-1]
    if part.dim() == 1 or all(size == 1 for size in part.shape[:-1]):
        return part.reshape(*(1,) * at.dim(), r)
    return part.expand(*shape, r).reshape(-1, r)[at]


def densely(func: Callable[..., Any], like: Tensor, *args: Any, **kwargs: Any) -> Affine:
    """An operation that is affine in some of its arguments together, column by column."""
    name = func._schema.name.removeprefix("aten::")  # type: ignore[attr-defined]
    at = [i for i, a in enumerate(args) if isinstance(a, Affine)]
    if not any(set(at) <= allowed for allowed in DENSE[name]):
        raise NoRuleError(f"{name} of several values that depend on trained parameters")
    values: list[Affine] = [args[i].settled() for i in at]
    columns = [value.dense(like) for value in values]
    positions = torch.cat([p for _, p in columns]).unique()
    if len(positions) > MOST_COLUMNS:
        raise NoRuleError(f"{name} of more than {MOST_COLUMNS} parameters")

    def run(parts: Sequence[Tensor]) -> Tensor:
        full = list(args)
        for i, part in zip(at, parts, strict=True):
            full[i] = part
        out: Tensor = func(*full, **kwargs)
        return out

    zeros = [like.new_zeros(value.shape) for value in values]
    base = run(zeros)
    check_size(base.numel(), len(positions))
    check_size(sum(zero.numel() for zero in zeros), len(positions))
    coefficient = like.new_empty(*base.shape, len(positions))
    for j, position in enumerate(positions):
        parts = []
        for zero, (phi, own) in zip(zeros, columns, strict=True):
            match = (own == position).nonzero()
            parts.append(phi[:, match[0, 0]].reshape(zero.shape) if len(match) else zero)
        coefficient[..., j] = run(parts) - base
    offset = run([z if v.offset is None else v.offset for z, v in zip(zeros, values, strict=True)])
    index = positions.reshape(*(1,) * base.dim(), len(positions))
    return Affine(base.shape, [Term(coefficient, index, name)], offset)
