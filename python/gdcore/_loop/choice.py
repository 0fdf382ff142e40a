"""Which way a fit is run, and why: the objects recognised, and the cheapest way that they leave."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _checks, _ops
from .._native.optimizers import not_native, recognise_optimizer
from .._native.runners import CompressedRunner, Runner, StepwiseRunner
from .._recognition.losses import NotSquaredError, squared_error_on
from .._recognition.models import recognise_model
from .._seen import Look
from . import cuda_cost as _cuda_cost
from .batches import Batches, Data, counts_of
from .cost import Costs, choose
from .eager import EagerStep
from .eager_runner import EagerRunner
from .explanation import Plan
from .names import named_parameters
from .native_model import NOT_ALONE, Recognised, by_form, by_kernel, suits
from .plain import NotPlainError, check_native, is_stacked
from .rows import Inputs, Rows, check_divisor
from .stacked import StackedRunner

METHODS = ("auto", "compressed", "stepwise", "eager")

_CPU = torch.device("cpu")
_FEW = 64
_MANY = 2**20
"""Elements of x beyond which a model is tried on its first rows before it sees them all."""

_HOW = {
    "stepwise": "every epoch passes over the rows once",
    "compressed": "one factorisation, then every epoch passes over few rows",
}


class _NotFusedError(Exception):
    """The reason why the native loops do not take a fit, and the user's line, where it is known."""

    def __init__(self, reason: str, where: str | None = None) -> None:
        super().__init__(reason)
        self.where = where


class Chooser:
    """Decides how a model is trained on some data, and makes what trains it."""

    def __init__(
        self,
        model: Any,
        loss_fn: Any,
        optimizer: torch.optim.Optimizer,
        *,
        method: str,
        strict: bool,
        max_grad_norm: float | None,
    ) -> None:
        self._model, self._loss_fn, self._optimizer = model, loss_fn, optimizer
        self._method, self._strict, self._max_grad_norm = method, strict, max_grad_norm

    @cached_property
    def _eager_step(self) -> EagerStep:
        return EagerStep(self._model, self._loss_fn, self._optimizer, self._max_grad_norm)

    def choose(self, data: Data, epochs: int) -> "Chosen":
        """Decide. Data that are read epoch by epoch are decided about as they come.

        Raises:
            ValueError: ``strict``, and it cannot be fused: the reason.
        """
        if self._method == "compressed" and not isinstance(data, Rows):
            raise ValueError("method: expected the full batch to be compressed, got minibatches")
        rows = data if isinstance(data, Rows) else data.rows if isinstance(data, Batches) else None
        batch_size = data.batch_size if isinstance(data, Batches) else None
        if self._method == "eager":
            return self._eager(_NotFusedError("it was asked for"), rows, epochs, batch_size)
        try:
            if rows is None:
                return self._as_it_comes(epochs)
            in_order = not isinstance(data, Batches) or data.lie_in_order
            return self._native(rows, epochs, batch_size, in_order)
        except _NotFusedError as reason:
            if self._strict:
                raise ValueError(str(reason)) from reason
            return self._eager(reason, rows, epochs, batch_size)

    def _eager(
        self, reason: _NotFusedError, rows: Rows | None, epochs: int, batch_size: int | None
    ) -> "Chosen":
        number = 0 if rows is None else rows.number
        plan = Plan(
            "eager", str(reason), None, (), (), None, reason.where, None, epochs, number, batch_size
        )
        parameters = named_parameters(self._model, self._optimizer)
        return Chosen(plan, parameters, lambda rows, _: EagerRunner(self._eager_step, rows), True)

    def _native(
        self, rows: Rows, epochs: int, batch_size: int | None, in_order: bool = True
    ) -> "Chosen":
        """In batches of which each has the rows that follow those of the last, or others."""
        batched = batch_size is not None
        counts = counts_of(rows.number, batch_size, in_order)
        if batch_size is not None and batch_size >= rows.number:
            batch_size = None
        try:
            check_native(rows.x, rows.y)
            if rows.weight is not None and rows.weight.requires_grad:
                raise NotPlainError("weight: expected one that does not require grad, got one")
        except NotPlainError as error:
            raise _NotFusedError(str(error)) from error
        self._check_optimizer()
        seen = self._recognised(rows.x, counts)
        mean = self._mean(rows.y, batch_size)
        if mean and not batched:
            check_divisor(rows.weight)
        device = seen.device
        on_cpu = device == _CPU  # asking for its type makes a string
        _check_device(rows, device)
        size = None if batch_size is None else batch_size * seen.stack
        asked = (*seen.shape, seen.outputs, epochs, size, seen.dtype)
        costs = choose(*asked) if on_cpu else self._costs_on_cuda(seen, asked)
        if not seen.affine:
            costs = costs._replace(compressed=None)
            if self._method == "compressed":
                raise _NotFusedError("model: expected one affine in its parameters to compress")
        elif rows.weight is not None and self._method == "auto" and bool((rows.weight < 0).any()):
            costs = costs._replace(compressed=None)
        if batched:
            costs = costs._replace(compressed=None)
        options = not_native(self._optimizer.param_groups)
        if options is not None:
            raise _NotFusedError(options)
        no_steps = None if on_cpu else self._no_steps_on_cuda(seen)
        if no_steps is not None:
            costs = costs._replace(stepwise=None)
        method, why = self._cheapest(costs, no_steps)
        plan = Plan(
            method,
            why,
            seen.shape,
            seen.formed,
            seen.names,
            mean,
            None,
            costs,
            epochs,
            rows.number,
            batch_size,
            rows.weight is not None,
            "cpu" if on_cpu else str(device),
        )
        problem = seen.problem(rows, mean)
        on_cuda = not on_cpu and method == "stepwise" and device.type == "cuda"

        def runner(_: Rows, __: int | None) -> Runner:
            kind: Callable[..., Runner]
            if on_cuda:
                kind = _cuda_runner()
            else:
                kind = CompressedRunner if method == "compressed" else StepwiseRunner
            made = kind(problem, self._optimizer, max_grad_norm=self._max_grad_norm)
            return StackedRunner(made, seen.stack) if batched and seen.stack != 1 else made

        return Chosen(plan, dict(zip(seen.names, seen.parameters, strict=True)), runner, on_cuda)

    def _cheapest(self, costs: Costs, no_steps: str | None) -> tuple[str, str]:
        """The method, and why; ``no_steps`` says why stepping is not open."""
        method = costs.method if self._method == "auto" else self._method
        if getattr(costs, method) is None:
            raise _NotFusedError(no_steps or "data: expected what has a native loop")
        if self._method != "auto":
            return method, "it was asked for"
        if no_steps is not None:
            return method, f"{no_steps}: {_HOW[method]}"
        return method, f"it costs least: {_HOW[method]}"

    def _costs_on_cuda(self, seen: Recognised, asked: Any) -> Costs:
        if _ops.cuda is None:  # then no steps are native there
            return _cuda_cost.choose(*asked, launches=2)
        from .._native.cuda_loop import launches

        clips = self._max_grad_norm is not None
        count = launches(seen.kernel, seen.parameters, seen.shape[0], asked[-2], clips)
        return _cuda_cost.choose(*asked, launches=count)

    def _no_steps_on_cuda(self, seen: Recognised) -> str | None:
        """Why steps over the rows are not native there, or None where they are."""
        if _ops.cuda is None:
            return "device: expected a build of gdcore with its CUDA path to step there"
        from .._native.cuda_loop import unsuited

        indexed = (seen.outputs, seen.shape[1]) if seen.kernel == "indexed" else None
        return unsuited(seen.kernel, seen.parameters, self._optimizer.param_groups, indexed)

    def _as_it_comes(self, epochs: int) -> "Chosen":
        """Of data that nobody has seen yet: natively, as far as what is read allows it."""
        self._check_optimizer()
        why = "batches are read as they come, and recognised one by one"
        plan = Plan("as read", why, None, (), (), None, None, None, epochs, 0, None)

        def runner(rows: Rows, batch_size: int | None) -> Runner:
            nonlocal plan
            try:
                made = self._native(rows, 1, batch_size, in_order=False).runner(rows, batch_size)
            except _NotFusedError as reason:
                if self._strict:
                    raise ValueError(str(reason)) from reason
                made = EagerRunner(self._eager_step, rows)
                plan = plan.with_batches(made.method, str(reason), reason.where)
            else:
                plan = plan.with_batches(made.method)
            return made

        names = named_parameters(self._model, self._optimizer)
        return Chosen(plan, names, runner, False, lambda: plan)

    def _check_optimizer(self) -> None:
        try:
            recognise_optimizer(self._optimizer, Look())
        except (TypeError, ValueError) as error:
            raise _NotFusedError(str(error)) from error

    def _mean(self, y: Tensor, batch_size: int | None) -> bool:
        """Whether the loss is a mean of squares, or their sum."""
        loss = squared_error_on(self._loss_fn, y, batch_size)
        if isinstance(loss, NotSquaredError):
            raise _NotFusedError(f"loss_fn: {loss.reason}", loss.where)
        return loss.mean

    def _recognised(self, x: Inputs, counts: tuple[int, ...]) -> Recognised:
        """What the model is, given all rows at once, or batches of so many."""
        in_batches = bool(counts)
        native, said = None, None
        if isinstance(x, Tensor) and x.dim() > 0:
            try:
                native = recognise_model(self._model, Look())
            except TypeError:
                pass  # not by its name; by what it does, perhaps
            except ValueError as error:
                said = str(error)
        stacked = native is not None and is_stacked(native, x, in_batches=in_batches)
        if native is not None and suits(native) and not stacked:
            return by_kernel(native, x)
        from ..affine import NotAffine, affine_form

        held = [p for group in self._optimizer.param_groups for p in group["params"]]
        few = _first_rows(x)
        if few is not None:
            try:
                form = affine_form(self._model, held, few)
            except Exception:
                pass  # it may want all of its rows
            else:
                if isinstance(form, NotAffine):
                    raise _NotFusedError(said or f"model: {form.reason}", form.where)
        form = affine_form(self._model, held, x, counts)
        if isinstance(form, NotAffine):
            raise _NotFusedError(said or f"model: {form.reason}", form.where)
        if in_batches and form.stack == 0:
            raise _NotFusedError(f"model: {NOT_ALONE}")
        return by_form(form)


class Chosen(NamedTuple):
    """The plan, what its records hold, and how a runner over some rows is made."""

    plan: Plan
    parameters: dict[str, Tensor]
    """By name, in the order in which a runner records them."""
    runner: Callable[[Rows, int | None], Runner]
    """What takes batches of so many of them, or all at once."""
    steps_are_python: bool
    """Whether a runner's steps are to be made whole before Ctrl-C counts: it looks itself."""
    taken: Callable[[], Plan] | None = None
    """The plan of data that are read, with what the batches until now allowed."""

    def current_plan(self) -> Plan:
        return self.plan if self.taken is None else self.taken()


def _cuda_runner() -> Callable[..., Runner]:
    from .._native.cuda_runner import CudaRunner

    return CudaRunner


def _check_device(rows: Rows, device: torch.device) -> None:
    xs = rows.x if isinstance(rows.x, tuple) else (rows.x,)
    if any(t is not None and t.is_cuda for t in (*xs, rows.y, rows.weight)) or (
        device != _CPU and device.type == "cuda"
    ):
        names = ["x"] if len(xs) == 1 else [f"x[{i}]" for i in range(len(xs))]
        named = dict(zip(names, xs, strict=True))
        _checks.beside_parameters(device, **named, y=rows.y, weight=rows.weight)


def _first_rows(x: Inputs) -> Inputs | None:
    """So few that a network is refused before all of its activations are held; None where all are
    few.
    """
    inputs = x if isinstance(x, tuple) else (x,)
    if max(one.numel() for one in inputs) <= _MANY or any(one.dim() == 0 for one in inputs):
        return None
    first = tuple(one[:_FEW] for one in inputs)
    return first if isinstance(x, tuple) else first[0]
