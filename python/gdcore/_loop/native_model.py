"""A model as the native loops take it: by a kernel of its own, or as features."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .. import _checks, _ops
from .._native.problem import Problem
from .._recognition.models import NativeModel
from .rows import Rows, per_element

if TYPE_CHECKING:
    from ..affine import AffineForm

__all__ = ["NOT_ALONE", "Recognised", "by_form", "by_kernel", "suits"]

NOT_ALONE = "a row of its prediction is not known to depend on one row of x alone, as batches need"


class Recognised(NamedTuple):
    """A model as the native loops take it."""

    kernel: str
    names: tuple[str, ...]
    parameters: tuple[Tensor, ...]
    shape: tuple[int, int]
    outputs: int
    formed: tuple[str, ...]
    affine: bool
    dtype: torch.dtype
    problem: Callable[[Rows, bool], Problem]
    stack: int = 1
    """Rows of the shape that belong to each row of x; 0 where they may depend on several."""

    @property
    def device(self) -> torch.device:
        return self.parameters[0].device


def suits(native: NativeModel) -> bool:
    """Whether the kernels take its parameters."""
    known: tuple[torch.dtype, ...] = _checks.NATIVE
    if native.parameters[0].is_cuda and _ops.cuda is not None:
        known += _checks.HALF
    for parameter in native.parameters:
        somewhere = parameter.is_cpu or parameter.is_cuda or parameter.is_meta
        if not somewhere or parameter.dtype not in known:
            return False
    return True


def by_kernel(native: NativeModel, x: Any) -> Recognised:
    first = native.parameters[0]
    outputs = 1
    if native.kernel == "linear":
        formed: tuple[str, ...] = ("x",) if len(native.parameters) == 1 else ("x", "1")
        outputs, q = first.shape[0], first.shape[1] + len(formed) - 1
    elif native.kernel == "polynomial":
        q = first.numel()
        formed = (f"powers of x up to {q - 1}",)
    else:
        formed, q = ("x, by a kernel of its own",), 4

    def problem(rows: Rows, mean: bool) -> Problem:
        assert isinstance(rows.x, Tensor)
        kernel, names, parameters, flat = native
        return Problem(kernel, names, parameters, rows.x, rows.y, per_element(rows), mean, flat)

    shape = (x.shape[0], q)
    affine = native.kernel != "legendre"
    return Recognised(
        native.kernel,
        native.names,
        native.parameters,
        shape,
        outputs,
        formed,
        affine,
        first.dtype,
        problem,
    )


def by_form(form: AffineForm) -> Recognised:
    features, index = form.features, form.index
    shape = (features.shape[0], len(index))

    def problem(rows: Rows, mean: bool) -> Problem:
        y, weight = rows.y, per_element(rows)
        if y.shape != form.shape:
            raise ValueError(
                f"y: expected the prediction's shape {tuple(form.shape)}, got {tuple(y.shape)}"
            )
        if y.dtype != features.dtype:
            raise TypeError(f"y: expected dtype {features.dtype} as x, got {y.dtype}")
        y = y.reshape(shape) if form.offset is None else y.reshape(shape) - form.offset
        weight = None if weight is None else weight.reshape(shape)
        names, parameters = form.names, form.parameters
        return Problem("indexed", names, parameters, features, y, weight, mean, index=index)

    return Recognised(
        "indexed",
        form.names,
        form.parameters,
        (features.shape[0], features.shape[1]),
        len(index),
        form.origin,
        True,
        features.dtype,
        problem,
        form.stack,
    )
