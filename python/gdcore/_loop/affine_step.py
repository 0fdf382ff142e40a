"""Native steps of a model that is affine in its parameters, with x itself as its features.

Which model that is, only its own forward says; so the steps follow it. Whatever the model reaches
is watched, and before each update the model predicts the first row, which has to be the formula's.
Where it is not, or something was replaced, the model is looked at afresh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _checks, _ops
from .._native.loop import training_of
from .._native.optimizers import recognise_optimizer
from .._seen import Look, Seen
from .names import name_of
from .plain import check_native
from .turns import after_fork

if TYPE_CHECKING:
    from ..affine import AffineForm

__all__ = ["AffineSteps"]

_PROBES = 4
"""Rows that a model predicts before its first step."""
_ROWS = 16
"""Rows by which columns are told apart."""
_MOST_COMPARED = 2**20
_MOST_COPIED = 2**17
"""Elements of x up to which laying a column of ones beside it costs less than an eager step."""
_LAMBDA = 8.0
"""As in the check of an affine form: an excess over its bound is as unlikely as 1e-13."""
_MOST_WAITS = 1024

_autocast = torch._C._is_any_autocast_enabled


class AffineSteps:
    """Steps of one model for as long as it is affine, whatever becomes of it between them."""

    def __init__(self, model: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> None:
        self._given = model, loss_fn, optimizer
        self._step: _Step | None = None
        self._refused: _ops.Watch | None = None
        self._waits = self._left = 0
        self.reason = ""
        """Why there was no step when the model was looked at last."""

    def check(self) -> None:
        """Refuse what no data could make a native step of.

        Raises:
            ValueError: a loss or an optimizer that is not known, or parts with hooks.
        """
        from .._recognition.losses import NotSquaredError, squared_error
        from .._recognition.reach import Reach

        model, loss_fn, optimizer = self._given
        hindrance = Reach(model).hindrance()
        if hindrance is not None:
            raise ValueError(f"model: expected no hooks, got {hindrance}")
        loss = squared_error(loss_fn)
        if isinstance(loss, NotSquaredError):
            name = name_of(loss_fn)
            raise ValueError(f"loss_fn: expected a squared error, got {name}: {loss.reason}")
        try:
            recognise_optimizer(optimizer, Look())
        except TypeError as error:
            raise ValueError(str(error)) from error

    def __call__(self, x: Any, y: Any) -> Tensor | None:
        """The loss before the update, or None, with nothing done."""
        if not _plain(x) or not _plain(y) or _autocast():
            self.reason = "x or y is not a plain tensor in memory, or autocast is on"
            return None
        if x.numel() > _MOST_COPIED:
            self.reason = (
                f"x: expected at most {_MOST_COPIED} elements for a model that is not known by its "
                f"name, got {x.numel()}"
            )
            return None
        with after_fork():
            return self._stepped(x, y)

    def _stepped(self, x: Tensor, y: Tensor) -> Tensor | None:
        if self._step is not None:
            loss = self._step(x, y)
            if loss is not None:
                return loss
            self._step = None
        elif self._refused is not None and self._refused.unchanged():
            return None
        # A model that changes at every step must not be looked at every time.
        if self._left > 0:
            self._left -= 1
            return None
        self._left, self._waits = self._waits, min(2 * self._waits + 1, _MOST_WAITS)
        self._refused = None
        try:
            self._step = _Step(*self._given, x, y)
        except _NoStepError as error:
            self.reason, self._refused = error.reason, error.watch
            return None
        return self._step(x, y)


def _plain(value: Any) -> bool:
    return (
        type(value) is Tensor
        and not value.requires_grad
        and value.layout is torch.strided
        and value.device.type == "cpu"
    )


class _NoStepError(Exception):
    """Why there is none, and what would have to change first."""

    def __init__(self, reason: str, watch: _ops.Watch | None) -> None:
        super().__init__(reason)
        self.reason, self.watch = reason, watch


def _not_native(model: Any, reason: str, seen: Seen | None) -> _NoStepError:
    return _NoStepError(
        f"model: expected one that is affine in its parameters, got {name_of(model)}: {reason}",
        None if seen is None else seen.watch,
    )


def _counted(count: int) -> Tensor:
    return torch.arange(count, device="cpu")  # whatever the default device is


class _Features:
    """Columns of [x | 1], each times a number."""

    def __init__(self, columns: Tensor, factors: Tensor, d: int) -> None:
        self.columns, self.factors = columns, factors
        self._row = np.ones(d + 1, dtype=factors.numpy().dtype)
        in_order = torch.equal(columns, _counted(len(columns)))
        straight = in_order and bool((factors == 1).all())
        self._is_x, self._appends = straight and len(columns) == d, straight and len(columns) > d
        self._ones = factors.new_empty(0, 1)

    def __call__(self, x: Tensor) -> Tensor:
        n = len(x)
        flat = x.reshape(n, -1)
        if self._is_x:
            return flat
        if len(self._ones) != n:
            self._ones = flat.new_ones(n, 1)
        base = torch.cat((flat, self._ones), 1)
        return base if self._appends else base[:, self.columns] * self.factors

    def of_row(self, x: Tensor) -> Any:
        """Those of a single row, as an array."""
        self._row[:-1] = x.numpy().ravel()
        return self._row[self.columns.numpy()] * self.factors.numpy()

    @staticmethod
    def of(form: AffineForm, x: Tensor) -> _Features | None:
        """What a form's seem to be for this x, if they are such columns."""
        n, q = form.features.shape
        if not form.rowwise or form.offset is not None or n != len(x):
            return None
        flat = x.reshape(n, -1)
        d = flat.shape[1]
        if flat.shape == form.features.shape and torch.equal(flat, form.features):
            return _Features(_counted(q), flat.new_ones(q), d)
        base, found = flat.new_ones(min(n, _ROWS), d + 1), form.features[:_ROWS]
        if base.numel() * q > _MOST_COMPARED:
            return None
        base[:, :-1] = flat[:_ROWS]
        largest = base.abs().argmax(0)
        by = found[largest] / base[largest, _counted(d + 1), None]
        error = (found[:, None] - base[:, :, None] * by).abs()
        same = (error <= 4 * torch.finfo(x.dtype).eps * found.abs()[:, None]).all(0)
        if not bool(same.any(0).all()):
            return None
        columns = same.int().argmax(0)
        return _Features(columns, by[columns, _counted(q)], d)


class _Step:
    def __init__(
        self, model: Any, loss_fn: Any, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor
    ) -> None:
        # Imported when they are needed: most programs' models are known by their names.
        from .._recognition.reach import Reach
        from ..affine import NotAffine, affine_form

        seen = Seen()
        for name, one in (("model", model), ("loss_fn", loss_fn)):
            reach = Reach(one)
            hindrance = reach.hindrance()
            if hindrance is not None:
                raise _NoStepError(f"{name}: expected plain modules, got {hindrance}", None)
            reach.watch(seen)
        self._model, self._loss_fn = model, loss_fn
        held = [p for group in optimizer.param_groups for p in group["params"]]
        try:
            recognise_optimizer(optimizer, seen)
        except (TypeError, ValueError) as error:
            raise _NoStepError(str(error), seen.watch) from error
        if x.dim() == 0 or x.numel() == 0 or x.dtype not in _checks.NATIVE:
            raise _NoStepError("x: expected rows of float32 or float64", None)
        form = affine_form(model, held, x)
        if isinstance(form, NotAffine):
            # Of other numbers the model may be another, and so may its features below.
            raise _not_native(model, form.reason, seen if bool(x.isfinite().all()) else None)
        features = _Features.of(form, x)
        if features is None:
            reason = f"its features are {', '.join(form.origin)}, and not columns of x"
            raise _not_native(model, reason, None)
        if form.reads:
            raise _not_native(model, "it reads values of x, or of a constant", seen)
        self._features, self._parameters = features, form.parameters
        self._index, k_q = form.index.numpy(), form.index.shape
        self._outputs = k_q[0]
        self._error = torch.finfo(x.dtype).eps * (_LAMBDA * k_q[1] ** 0.5 + 32)
        self._dtype, self._tails = x.dtype, (x.shape[1:], form.shape[1:])
        self._one = torch.Size((1, *form.shape[1:]))
        self._zero = np.zeros(1, form.features.numpy().dtype)
        self._mean: bool | None = None
        self._known: set[torch.Size] = set()
        if not self._suits(x, y):
            raise _NoStepError(
                "loss_fn: expected a squared error of a prediction and y of the same shape and "
                f"dtype, got {name_of(loss_fn)} and y of shape {tuple(y.shape)}",
                None,
            )
        # Another x: a tensor that the model holds may be what looked like x.
        generator = torch.Generator().manual_seed(0)
        shape = _PROBES, *x.shape[1:]
        probes = torch.randn(shape, generator=generator, device="cpu").to(x.dtype)
        if not all(map(self._predicts, probes.split(1))):
            raise _not_native(model, "its prediction of another x is another function", None)
        for parameter in form.parameters:
            for kind in ("_backward_hooks", "_post_accumulate_grad_hooks"):
                hooks = seen.attribute(parameter, kind)
                if hooks is not None:
                    seen.empty(hooks)
        objective = _Objective("indexed", False, form.parameters)
        training = training_of(objective, bool(self._mean), optimizer, form.index)
        try:
            training.check(optimizer.param_groups)
        except (TypeError, ValueError) as error:
            raise _NoStepError(str(error), None) from error
        self._native = _ops.step(training, seen.watch, optimizer, check_native)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor | None:
        if not self._suits(x, y) or not self._predicts(x[:1]):
            return None
        return self._native(self._features(x), y.reshape(len(x), self._outputs))

    def _suits(self, x: Tensor, y: Tensor) -> bool:
        """Whether the shapes are such as they were, and the loss is a squared error for them."""
        if x.dtype != self._dtype or y.dtype != self._dtype or x.dim() == 0 or len(x) == 0:
            return False
        inputs, outputs = self._tails
        if x.shape[1:] != inputs or y.shape[:1] != x.shape[:1] or y.shape[1:] != outputs:
            return False
        if y.shape not in self._known:
            from .._recognition.losses import NotSquaredError, squared_error_on

            loss = squared_error_on(self._loss_fn, y)
            if isinstance(loss, NotSquaredError) or self._mean not in (None, loss.mean):
                return False
            self._mean = loss.mean
            self._known.add(y.shape)
        return True

    def _predicts(self, row: Tensor) -> bool:
        """Whether the model's prediction of one row (1, …) is the formula's, to rounding."""
        with torch.no_grad():
            out = self._model(row)
        if type(out) is not Tensor or out.dtype != self._dtype or out.shape != self._one:
            return False
        values = [p.detach().numpy().ravel() for p in self._parameters]
        weights = np.concatenate((*values, self._zero))[self._index]
        features = self._features.of_row(row)
        with np.errstate(all="ignore"):  # what is not finite does not agree
            error = out.detach().numpy().ravel() - weights @ features
            allowed = self._error * (np.abs(weights) @ np.abs(features))
            return bool((np.abs(error) <= allowed).all())


class _Objective(NamedTuple):
    """What a native loop is told of a model."""

    kernel: str
    flat: bool
    parameters: tuple[Tensor, ...]
