"""Native steps of a model that is affine in its parameters, with x itself as its features.

Which model that is, only its own forward says; so the steps follow it. The forward was seen to do
no more with x than moving and scaling its numbers, so that it does the same with others. Whatever
the model reaches is watched, and before each update the model predicts a row without zeros, which
has to be the formula's. Where it is not, or something was replaced, the model is looked at afresh.
That rows do not depend on one another shows only where there are several, and may hold for so many
and no more: so every new number of rows is tried before it is stepped with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .. import _checks, _ops
from .._native.loop import training_of
from .._native.optimizers import recognise_optimizer
from .._seen import Look, Seen
from .columns import Features
from .names import name_of
from .native_model import NOT_ALONE
from .plain import check_native
from .probe import Probe
from .turns import after_fork

if TYPE_CHECKING:
    from ..affine import AffineForm

__all__ = ["AffineSteps"]

_MOST_COPIED = 2**17
"""Elements of x up to which laying a column of ones beside it costs less than an eager step."""
_MOST_WAITS = 1024
_DECADES = 3
"""Up and down: how far the numbers of a probe go, so that a threshold shows."""

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
            raise ValueError(f"model: expected no hooks or hidden state, got {hindrance}")
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
            self.reason = (
                "x and y: expected plain tensors on the CPU without autocast for a model that is "
                "not known by its name, got others, or autocast"
            )
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
                raise _NoStepError(
                    f"{name}: expected no hooks or hidden state, got {hindrance}", None
                )
            unwatched = reach.unwatched()
            if one is loss_fn and reach.names:  # those of a model show in its predictions
                unwatched = "values of its own, which may change from step to step"
            if unwatched is not None:
                raise _NoStepError(
                    f"{name}: expected no hooks or hidden state, got {unwatched}", None
                )
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
        if form.reads:
            raise _not_native(model, "it reads values of x, or of a constant", seen)
        if not form.moves:
            raise _not_native(model, "it computes with x before parameters meet it", seen)
        if not form.rowwise:
            raise _not_native(model, NOT_ALONE, None)
        # Another x, without equal columns or columns of zeros: a tensor that the model holds may be
        # what looked like x.
        self._held, rows = held, _rows_like(x)
        again = self._form_of(rows)
        if again is None:
            raise _not_native(model, "its prediction of another x is another function", None)
        form = again
        features = Features.of(form, rows)
        if features is None:
            reason = f"its features are {', '.join(form.origin)}, and not columns of x"
            raise _not_native(model, reason, None)
        self._features, self._parameters = features, form.parameters
        self._index, self._outputs = form.index, len(form.index)
        self._dtype, self._tails = x.dtype, (x.shape[1:], form.shape[1:])
        self._probe = Probe(self._features, form, x)
        self._mean: bool | None = None
        self._known: set[torch.Size] = set()
        self._counts = {len(x)}
        if not self._suits(x, y):
            raise _NoStepError(
                "loss_fn: expected a squared error of a prediction and y of the same shape and "
                f"dtype, got {name_of(loss_fn)} and y of shape {tuple(y.shape)}",
                None,
            )
        if not self._probe.agrees(model):
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
        if not self._suits(x, y) or not self._probe.agrees(self._model):
            return None
        if len(x) not in self._counts:
            if not self._is_the_same(x):
                return None
            self._counts.add(len(x))
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

    def _is_the_same(self, x: Tensor) -> bool:
        """Whether the model has the same form for as many rows as x, of numbers of any size."""
        rows = _rows_like(x)
        form, expected = self._form_of(rows), self._features(rows)
        if form is None or form.features.shape != expected.shape:
            return False
        error = (form.features - expected).abs()
        return (
            torch.equal(form.index, self._index)
            and [*map(id, form.parameters)] == [*map(id, self._parameters)]
            and bool((error <= 8 * torch.finfo(x.dtype).eps * expected.abs()).all())
        )

    def _form_of(self, rows: Tensor) -> AffineForm | None:
        """What the model is for these rows, if it is what a step can follow."""
        from ..affine import AffineForm, affine_form

        try:
            form = affine_form(self._model, self._held, rows)
        except Exception:  # a model that wants other rows
            return None
        if not isinstance(form, AffineForm) or form.offset is not None:
            return None
        return form if form.rowwise and form.moves and not form.reads else None


def _rows_like(x: Tensor) -> Tensor:
    """As many rows, of numbers of any size, and always the same."""
    generator = torch.Generator().manual_seed(len(x))
    normal = torch.randn(2, *x.shape, generator=generator, dtype=x.dtype, device="cpu")
    return normal[0] * 10 ** (_DECADES * torch.tanh(2 * normal[1]))


class _Objective(NamedTuple):
    """What a native loop is told of a model."""

    kernel: str
    flat: bool
    parameters: tuple[Tensor, ...]
