"""Saying beforehand how a fit would run, and why, as a database's EXPLAIN does."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._cost import Costs, choose
from ._losses import NotSquaredError, squared_error
from ._seen import Seen
from .affine import NotAffine, affine_form
from .plan import LossFunction, NativeModel, recognise_model
from .plan import _plain_optimizer as recognise_optimizer

__all__ = ["Plan", "explain"]

_METHODS = ("auto", "compressed", "stepwise", "eager")


@dataclass(frozen=True)
class Plan:
    """How a fit would run. Prints as a short tree.

    Attributes:
        method: ``"stepwise"``, ``"compressed"`` or ``"eager"``.
        why: what decided.
        shape: (n, q) of the features, or None where there are none.
        formed: how the features are formed, one word for a group of their columns.
        parameters: the names of the trained parameters.
        mean: whether the loss is a mean of squared errors, or their sum; None where it is neither.
        where: the line of the user's that stands against a native loop, if one is known.
        costs: seconds of each way by the stated model, or None.
        epochs: how many there would be.
        rows: of the data.
        batch_size: rows of a minibatch, or None for all.
        weighted: whether rows have weights in the loss.

    Example:
        >>> W, b = torch.zeros(3, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
        >>> optimizer = torch.optim.SGD([W, b], lr=0.1)
        >>> data = (torch.ones(5, 3), torch.ones(5, 1))
        >>> plan = gdcore.explain(
        ...     lambda x: x @ W + b, torch.nn.MSELoss(), optimizer, data, epochs=100
        ... )
        >>> print(plan)
        fit: 100 epochs over 5 rows, full batch
        ├─ features: 5 × 4 from x, 1
        ├─ parameters: W, b
        ├─ loss: mean of squared errors
        ├─ method: stepwise, because it costs least: every epoch passes over the rows once
        ├─ cost: 30 µs to prepare, 0.038 µs an epoch, 33.8 µs in all
        └─ otherwise: compressed 134 µs, eager 25 ms

    Reference:
        ``gdcore._cost`` states the cost model.
    """

    method: str
    why: str
    shape: tuple[int, int] | None
    formed: tuple[str, ...]
    parameters: tuple[str, ...]
    mean: bool | None
    where: str | None
    costs: Costs | None
    epochs: int
    rows: int
    batch_size: int | None
    weighted: bool

    def __str__(self) -> str:
        lines = list(self._lines())
        return "\n".join([lines[0], *(f"├─ {line}" for line in lines[1:-1]), f"└─ {lines[-1]}"])

    def _lines(self) -> Iterator[str]:
        batch = "full batch" if self.batch_size is None else f"batches of {self.batch_size}"
        yield f"fit: {_count(self.epochs, 'epoch')} over {_count(self.rows, 'row')}, {batch}"
        if self.shape is not None:
            n, q = self.shape
            yield f"features: {n} × {q} from {', '.join(self.formed)}"
        if self.parameters:
            yield f"parameters: {', '.join(self.parameters)}"
        if self.mean is not None:
            weighted = "weighted " if self.weighted else ""
            yield f"loss: {weighted}{'mean' if self.mean else 'sum'} of squared errors"
        if self.where is not None:
            yield f"seen at: {self.where}"
        yield f"method: {self.method}, because {self.why}"
        if self.costs is None:
            yield "cost: not known before it runs"
            return
        cost = getattr(self.costs, self.method)
        prepare = f"{_seconds(cost.prepare)} to prepare, " if cost.prepare else ""
        others = ", ".join(
            f"{method} {_seconds(self.costs.total(method))}"
            for method in ("stepwise", "compressed", "eager")
            if method != self.method and getattr(self.costs, method) is not None
        )
        total = self.costs.total(self.method)
        yield f"cost: {prepare}{_seconds(cost.epoch)} an epoch, {_seconds(total)} in all"
        yield f"otherwise: {others}"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _seconds(seconds: float) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.2g} µs"


def explain(
    model: Callable[..., Tensor],
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer,
    data: Any,
    *,
    epochs: int,
    batch_size: int | None = None,
    weight: Tensor | None = None,
    method: str = "auto",
) -> Plan:
    """How `gdcore.fit` would train with these arguments, and why; nothing is trained.

    The model is looked at as `gdcore.affine.affine_form` does, so it runs forward a few times.

    Args:
        model: an ``nn.Module``, or a function of x over tensors that the optimizer holds.
        loss_fn: called as ``loss_fn(prediction, target)``.
        optimizer: holds the parameters that are trained.
        data: ``(x, y)`` or ``(x, y, weight)``, x a tensor or a tuple of them, a
            ``TensorDataset``, or a ``DataLoader`` over one.
        epochs: how many.
        batch_size: rows of a minibatch, or None for all of them.
        weight: the loss's weight of each row, or None.
        method: ``"auto"``, or one of the three ways.

    Returns:
        The `Plan`, which prints as a tree.

    Raises:
        ValueError: ``method`` is unknown.
        TypeError: ``data`` is none of these.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> data = (torch.ones(5, 3), torch.ones(5, 1))
        >>> plan = gdcore.explain(net, torch.nn.MSELoss(), optimizer, data, epochs=100)
        >>> plan.method, plan.why
        ('eager', 'model: ReLU is not affine in its input')

    Reference:
        The EXPLAIN of SQL databases.
    """
    if method not in _METHODS:
        raise ValueError(f"method: expected one of {', '.join(_METHODS)}, got {method!r}")
    x, y, weight, batch_size = _unpacked(data, batch_size, weight)
    rows = y.shape[0] if y.dim() else 1
    if batch_size is not None and batch_size >= rows:
        batch_size = None

    def eager(reason: str, where: str | None = None) -> Plan:
        sizes = (epochs, rows, batch_size, weight is not None)
        return Plan("eager", reason, None, (), (), None, where, None, *sizes)

    if method == "eager":
        return eager("it was asked for")
    try:
        recognise_optimizer(optimizer, Seen())
    except (TypeError, ValueError) as error:
        return eager(str(error))
    dtype = y.dtype if y.is_floating_point() else torch.float32
    loss = squared_error(loss_fn, _shapes(y, batch_size), dtype, y.device)
    if isinstance(loss, NotSquaredError):
        return eager(f"loss_fn: {loss.reason}", loss.where)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    seen = _features(model, held, x)
    if isinstance(seen, NotAffine):
        return eager(f"model: {seen.reason}", seen.where)
    if seen.outputs * seen.shape[0] != y.numel():
        return eager(f"y: expected {seen.outputs * seen.shape[0]} numbers, got {y.numel()}")
    if batch_size is not None and not seen.rowwise:
        return eager("model: a row of its prediction depends on other rows, so batches matter")
    n, q = seen.shape
    costs = choose(n, q, seen.outputs, epochs, batch_size, dtype)
    if not seen.affine:
        costs = costs._replace(compressed=None)
    if method == "compressed" and costs.compressed is None:
        open_to = "the full batch" if batch_size is not None else "a model affine in its parameters"
        return eager(f"method: expected {open_to} to compress")
    chosen = costs.method if method == "auto" else method
    why = "it was asked for" if method != "auto" else f"it costs least: {_HOW[chosen]}"
    return Plan(
        chosen,
        why,
        seen.shape,
        seen.formed,
        seen.names,
        loss.mean,
        None,
        costs,
        epochs,
        rows,
        batch_size,
        weight is not None,
    )


_HOW = {
    "stepwise": "every epoch passes over the rows once",
    "compressed": "one factorisation, then every epoch passes over few rows",
}


@dataclass(frozen=True)
class _Features:
    shape: tuple[int, int]
    outputs: int
    formed: tuple[str, ...]
    names: tuple[str, ...]
    rowwise: bool
    affine: bool


def _features(model: Any, held: list[Tensor], x: Any) -> _Features | NotAffine:
    """What the native loops would make of a model, by name or by watching it."""
    try:
        native = recognise_model(model, Seen())
    except (TypeError, ValueError):
        native = None
    if native is not None and isinstance(x, Tensor) and x.dim() > 0:
        return _by_name(native, x)
    form = affine_form(model, held, x)
    if isinstance(form, NotAffine):
        return form
    n, q = form.features.shape
    return _Features((n, q), form.index.shape[0], form.origin, form.names, form.rowwise, True)


def _by_name(native: NativeModel, x: Tensor) -> _Features:
    n = x.shape[0]
    first = native.parameters[0]
    if native.kernel == "linear":
        formed = ("x",) if len(native.parameters) == 1 else ("x", "1")
        q = first.shape[1] + len(formed) - 1
        return _Features((n, q), first.shape[0], formed, native.names, True, True)
    if native.kernel == "polynomial":
        q = first.numel()
        return _Features((n, q), 1, (f"powers of x up to {q - 1}",), native.names, True, True)
    return _Features((n, 4), 1, ("x, by a kernel of its own",), native.names, True, False)


def _shapes(y: Tensor, batch_size: int | None) -> list[tuple[int, ...]]:
    """Of the predictions that the loss will see: whole and last batches."""
    if batch_size is None:
        return [tuple(y.shape)]
    counts = {batch_size, y.shape[0] % batch_size} - {0}
    return [(count, *y.shape[1:]) for count in sorted(counts)]


def _unpacked(
    data: Any, batch_size: int | None, weight: Tensor | None
) -> tuple[Any, Tensor, Tensor | None, int | None]:
    loader = getattr(data, "dataset", None)
    if loader is not None:
        batch_size = data.batch_size if batch_size is None else batch_size
        data = loader
    parts = getattr(data, "tensors", data)
    if not isinstance(parts, (tuple, list)) or len(parts) not in (2, 3):
        raise TypeError(
            "data: expected (x, y), a TensorDataset or a DataLoader over one, "
            f"got {type(data).__name__}"
        )
    x, y = parts[0], parts[1]
    if not isinstance(y, Tensor):
        raise TypeError(f"y: expected a torch.Tensor, got {type(y).__name__}")
    if not isinstance(x, Tensor):
        if not isinstance(x, (tuple, list)) or not all(isinstance(one, Tensor) for one in x):
            raise TypeError(
                f"x: expected a torch.Tensor or a tuple of them, got {type(x).__name__}"
            )
        x = tuple(x)
    return x, y, parts[2] if len(parts) == 3 else weight, batch_size
