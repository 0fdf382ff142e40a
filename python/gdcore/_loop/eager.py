"""A step through autograd: any model, loss and optimizer, with gdcore's parts where they fit.

The loss is gdcore's where it is recognised, the update gdcore's where the optimizer is exactly one
of torch's that gdcore has, without hooks. ``.grad`` of what the optimizer holds is set aside while
steps are made, so that it is afterwards what it was before.
"""

import contextlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.optim import lr_scheduler
from torch.optim import optimizer as torch_optimizer

from .. import _checks, functional, optim, reference
from .._recognition.losses import NotSquaredError, squared_error_on
from .._recognition.models import recognise_loss
from .._seen import Seen
from .names import named_parameters
from .rows import Inputs, Rows, per_element

_OURS: dict[Any, Any] = {
    torch.optim.SGD: optim.SGD,
    torch.optim.RMSprop: optim.RMSprop,
    torch.optim.Adam: optim.Adam,
    torch.optim.AdamW: optim.AdamW,
}
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def predict(model: Any, x: Inputs) -> Tensor:
    """What a model gives for a tensor, or for several as so many arguments."""
    prediction = model(*x) if isinstance(x, tuple) else model(x)
    if not isinstance(prediction, Tensor):
        raise TypeError(
            f"model: expected it to return a torch.Tensor, got {type(prediction).__name__}"
        )
    return prediction


class Loss:
    """A loss function, or gdcore's in its place."""

    def __init__(self, loss_fn: Any) -> None:
        self._given = loss_fn
        self._reduction: str | None = None
        seen = Seen()
        with contextlib.suppress(TypeError, ValueError):
            self._reduction = "mean" if recognise_loss(loss_fn, seen) else "sum"
        self.unchanged = seen.watch.unchanged
        """Whether the function is as it was when this was made."""
        self._found: dict[torch.Size, str | None] = {}

    @property
    def recognised(self) -> bool:
        return self._reduction is not None

    def reduction(self, rows: Rows) -> str | None:
        """How it reduces squared errors, if it does, as far as that has to be known: what a
        function does is looked at only where there are weights, which it does not take.
        """
        if self._reduction is not None or rows.weight is None:
            return self._reduction
        shape = rows.y.shape
        if shape not in self._found:
            loss = squared_error_on(self._given, rows.y)
            if isinstance(loss, NotSquaredError):
                self._found[shape] = None
            else:
                self._found[shape] = "mean" if loss.mean else "sum"
        return self._found[shape]

    def __call__(self, prediction: Tensor, rows: Rows) -> Tensor:
        y, reduction = rows.y, self.reduction(rows)
        if reduction is None:
            if rows.weight is not None:
                raise ValueError(
                    "weight: expected None with a loss that is not recognised, got weights"
                )
            loss = self._given(prediction, y)
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
                raise ValueError(f"loss_fn: expected a tensor of one element, got {got}")
            return loss.reshape(())
        if prediction.shape != y.shape:
            raise ValueError(
                f"y: expected the prediction's shape {tuple(prediction.shape)}, "
                f"got {tuple(y.shape)}"
            )
        weight = per_element(rows)
        if _fits(prediction) and _fits(y) and prediction.dtype == y.dtype:
            return functional.mse_loss(prediction, y, reduction, weight)
        return reference.mse_loss(prediction, y, reduction, weight)


def _fits(tensor: Tensor) -> bool:
    known = tensor.device.type in _checks.devices
    return type(tensor) in _checks.PLAIN and known and tensor.dtype in _DTYPES


def trained_by(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The parameters that an optimizer updates."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


class EagerStep:
    """Forward, backward and update by autograd."""

    def __init__(
        self,
        model: Any,
        loss_fn: Any,
        optimizer: torch.optim.Optimizer,
        max_grad_norm: float | None,
    ) -> None:
        for name, parameter in named_parameters(model, optimizer).items():
            if isinstance(parameter, FakeTensor):
                raise TypeError(f"model: expected {name} with memory of its own, got a FakeTensor")
        self.model, self.optimizer = model, optimizer
        self._loss_fn, self._loss = loss_fn, Loss(loss_fn)
        self._max_grad_norm = max_grad_norm
        self.takes_closure = _needs_closure(optimizer)
        """Whether the optimizer evaluates the loss itself, as LBFGS does."""

    @contextlib.contextmanager
    def gradients_aside(self) -> Iterator[list[Tensor]]:
        """The parameters that are trained, their ``.grad`` put away meanwhile."""
        trained = trained_by(self.optimizer)
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        before = [p.grad for p in held]
        try:
            for parameter in held:  # one that is frozen now is not to be updated by an old one
                parameter.grad = None
            with torch.inference_mode(False), torch.enable_grad():
                yield trained
        finally:
            for parameter, grad in zip(held, before, strict=True):
                parameter.grad = grad

    def evaluate(self, rows: Rows, trained: list[Tensor]) -> Tensor:
        """The loss; its gradients are left in ``.grad``."""
        for parameter in trained:
            parameter.grad = None
        prediction = predict(self.model, rows.x)
        if not self._loss.unchanged():
            self._loss = Loss(self._loss_fn)
        loss = self._loss(prediction, rows)
        if loss.requires_grad and trained:
            loss.backward(inputs=trained)
        if all(parameter.grad is None for parameter in trained):
            raise ValueError(
                "optimizer: expected to hold a parameter of model that requires grad, got none"
            )
        return loss.detach()

    def update(self, rows: Rows, trained: list[Tensor], gradient_norm: Tensor | None) -> None:
        if self._max_grad_norm is not None:
            norm = self.norm(trained) if gradient_norm is None else gradient_norm
            torch.nn.utils.clip_grads_with_norm_(trained, self._max_grad_norm, norm)
        optimizer: Any = self.optimizer
        ours = _OURS.get(type(optimizer))
        if ours is not None and _unobserved(optimizer):
            stand_in: Any = object.__new__(ours)
            stand_in.__dict__ = optimizer.__dict__  # one state, two classes
            ours.step(stand_in)
            # torch's learning-rate schedulers look at this to see that the optimizer has stepped.
            optimizer._opt_called = True
        else:
            optimizer.step()

    def __call__(self, rows: Rows) -> Tensor:
        """One step, whatever the loss is: it is returned as it was before the update."""
        with self.gradients_aside() as trained:
            if self.takes_closure:
                return self.step_by_closure(rows, trained)
            loss = self.evaluate(rows, trained)
            self.update(rows, trained, None)
            return loss

    def step_by_closure(self, rows: Rows, trained: list[Tensor]) -> Tensor:
        optimizer: Any = self.optimizer

        def closure() -> Tensor:
            loss = self.evaluate(rows, trained)
            if self._max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(trained, self._max_grad_norm)
            return loss

        first = optimizer.step(closure)
        if isinstance(first, Tensor):
            return first.detach().clone()
        return torch.tensor(first, device="cpu")

    @staticmethod
    def norm(trained: list[Tensor]) -> Tensor:
        return torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])


def _needs_closure(optimizer: Any) -> bool:
    kind: Any = type(optimizer)
    parameter = inspect.signature(kind.step).parameters.get("closure")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _written_in(module: ModuleType, function: Any) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename == module.__file__


def _inside(step: Any) -> Any:
    """A step without what torch wraps around it: some of that at the class's first instance."""
    step = getattr(step, "__func__", step)
    while _written_in(torch_optimizer, step):
        step = step.__wrapped__
    return step


_STEPS = {kind: _inside(kind.step) for kind in _OURS}


def _unobserved(optimizer: Any) -> bool:
    """Whether nothing but the class's own step would run: no hooks, no replaced step."""
    step, own = optimizer.__dict__.get("step"), _STEPS[type(optimizer)]
    if step is None:
        step = type(optimizer).step
    elif _written_in(lr_scheduler, step):
        # torch's learning-rate schedulers wrap the step to see that it was called.
        step = step.__wrapped__
    return _inside(step) is own and not (
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or torch_optimizer._global_optimizer_pre_hooks
        or torch_optimizer._global_optimizer_post_hooks
    )
