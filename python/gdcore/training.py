"""Training in one call: a step, or the whole loop."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ._loop import fitting as _fit
from ._loop.affine_step import AffineSteps
from ._loop.arguments import Settings, check_objects
from ._loop.eager import EagerStep
from ._loop.events import Callback
from ._loop.history import DivergenceError, History
from ._loop.plain import check_native, trains_eagerly
from ._loop.rows import rows_of
from ._loop.turns import after_fork, turn_of
from ._recognition.models import LossFunction, StepPlan
from .metrics import Metric
from .stopping import Stop

__all__ = ["DivergenceError", "History", "fit", "train_step"]

Model = torch.nn.Module | Callable[..., Tensor]
TensorData = Tensor | Sequence[Tensor]
Data = Sequence[Any] | Dataset[Any] | DataLoader[Any]


def train_step(
    model: Model,
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer,
    *,
    strict: bool = False,
) -> Callable[[Tensor, Tensor], Tensor]:
    """A step of training as one call, native where that is possible.

    One call of the returned function does what ::

        loss = loss_fn(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    does, except that ``.grad`` of the parameters is left as it was. Learning rates, hooks,
    parameters and the loss are read afresh at each call, so schedulers work, and x and y may
    change their size. What has no native step, because of a hook that was added since, too, or of
    data that are sparse or require grad, is done through autograd, with gdcore's loss and update
    where they fit: ``.grad`` is set aside meanwhile, and what hooks do to it counts for the update.

    Args:
        model: any module or function of x. Natively ``nn.Linear``, ``Sequential(Linear, Flatten)``
            and the models of `gdcore.nn`; and whatever is affine in its parameters with columns of
            x, and a constant, for features, and does nothing else with x, while x has at most 2¹⁷
            elements: it predicts one row before each step, so that no change of it is overlooked.
        loss_fn: any function of the prediction and y. Natively ``nn.MSELoss``, ``F.mse_loss``,
            gdcore's, mean or sum, or a function that computes one of these.
        optimizer: natively SGD, RMSprop, Adam or AdamW, torch's or `gdcore.optim`'s; else any.
        strict: refuse what has no native step.

    Returns:
        ``step(x, y)``, which updates the parameters in place and returns the loss before the
        update as a new tensor of shape (). For several inputs x is a tuple of tensors.

    Raises:
        TypeError: something that is no model, loss or optimizer at all, or, from ``step``, an
            argument that is not a tensor of the parameters' dtype.
        ValueError: from ``step``, a shape that does not fit, or, with ``strict``, something that
            has no native step. Nothing has been written then.

    Example:
        >>> model = gdcore.nn.LinearRegression()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> step = gdcore.train_step(model, torch.nn.MSELoss(), optimizer)
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> losses = [step(x, 2 * x).item() for _ in range(200)]
        >>> losses[-1] < 1e-4
        True

    Reference:
        `gdcore.reference` for the formulas.
    """
    check_objects(model, loss_fn, optimizer)
    affine = AffineSteps(model, loss_fn, optimizer)
    if strict:  # what can be said without data is said at once
        try:
            StepPlan(model, loss_fn, optimizer)
        except TypeError:
            affine.check()
    native: Callable[[Tensor, Tensor], Tensor | None] | None = None
    eager: EagerStep | None = None

    lock = turn_of(optimizer)

    def step(x: Tensor, y: Tensor) -> Tensor:
        with lock:
            try:
                loss = None if native is None else native(x, y)
                if loss is None:
                    loss = step_anew(x, y)
            except ValueError:
                if strict or not trains_eagerly(model, x, y):
                    raise
                loss = None
            return step_eagerly(x, y) if loss is None else loss

    def step_anew(x: Tensor, y: Tensor) -> Tensor | None:
        """A native step of the objects as they are now, or None if they have none."""
        nonlocal native
        try:
            plan = StepPlan(model, loss_fn, optimizer)
        except (TypeError, ValueError) as error:
            by_name = isinstance(error, ValueError)  # known, but with hooks, say
            loss = None if by_name else affine(x, y)
            native = None if loss is None else affine
            if loss is None and strict:
                raise ValueError(str(error) if by_name else affine.reason) from error
            return loss
        stepper = plan.step(check_native)
        loss = stepper(x, y)
        if loss is None:
            raise RuntimeError("model: expected it to stay as it is, got a change")
        native = stepper
        return loss

    def step_eagerly(x: Tensor, y: Tensor) -> Tensor:
        nonlocal eager
        if eager is None:
            eager = EagerStep(model, loss_fn, optimizer, None)
        with after_fork():
            return eager(rows_of((x, y)))

    return step


def fit(
    model: Model,
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer,
    data: Data,
    *,
    epochs: int,
    batch_size: int | None = None,
    shuffle: bool = False,
    generator: torch.Generator | None = None,
    weight: Tensor | None = None,
    validation: Sequence[Any] | None = None,
    validate_every: int = 1,
    metrics: Iterable[str | Metric] = (),
    max_grad_norm: float | None = None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    scheduler_interval: str = "epoch",
    callbacks: Callback | Sequence[Callback] = (),
    callback_every: int = 1,
    progress: bool = False,
    log_every: int | None = None,
    record_every: int | None = None,
    record_steps: bool = False,
    stop: Stop | None = None,
    method: str = "auto",
    strict: bool = False,
) -> History:
    r"""Train for a number of epochs, the whole loop in native code wherever that can be.

    Each epoch is one step over all rows, or a step for each batch of them, as `train_step` does
    it. Parameters and optimizer state are updated in place, and ``.grad`` is left as it was, so
    training can go on in plain PyTorch. What happens between two epochs does not change the numbers
    of a native fit: nor does cutting it into several. Two threads that train with one optimizer
    take turns.

    Batches come in the order in which a ``DataLoader`` gives them, drawn from the same generators:
    a loop over the loader with the same seeds sees the same batches and leaves the generators in
    the same state. A loader over a plain ``TensorDataset`` is not read but replayed; any other is
    read once per epoch, and ahead of native steps: data that are made of the parameters as they
    are at each step need ``method="eager"``.

    A native fit looks at the model and the loss when it begins. What a callback changes of them
    counts from the next fit: a hook, an attribute or the mode of the model, a tensor that it holds
    besides its parameters; so do data that are changed in place, under ``"compressed"`` or where
    features were formed of them. Changed learning rates and parameters count at once, as do others
    in their place, and which of them are trained: where it must be, the way is then chosen anew for
    the epochs that are left. ``history.plan`` is the last one, and a rule of ``stop`` that looks at
    the training of the full batch begins with a new best.

    After an epoch's update come, where they are due: validation, the scheduler's step, the printed
    line, the callbacks. "Every k" means after epochs 0, k, 2k, ….

    Args:
        model: any module or function; natively, one of `gdcore.nn` or any that is affine in its
            parameters. Several inputs are given to it as so many arguments.
        loss_fn: any function of the prediction and y; natively, as `train_step` says.
        optimizer: any; natively, as `train_step` says.
        data: ``(x, y)`` or ``(x, y, weight)``, where x is a tensor or a tuple of tensors; a
            ``TensorDataset`` of these; another ``Dataset`` (with ``batch_size``) or a
            ``DataLoader`` that gives them.
        epochs: how many times all rows are gone through.
        batch_size: rows of a batch; all rows at once where it is None. The rows of a shuffled batch
            are gathered first: a large one takes as much memory as its rows.
        shuffle: draw the rows of the batches in random order, anew each epoch.
        generator: draws them; torch's default one where it is None.
        weight: how much each row counts, shape (n,), or each element of y: the mean is then
            ``Σ w r² / Σ w``.
        validation: ``(x, y)`` or ``(x, y, weight)``, on which the model is evaluated (in ``eval``
            mode) after the update, and once, with the metrics, before the first step, unless its
            call might leave something behind.
        validate_every: epochs between two evaluations.
        metrics: of the validation data: ``"mse"``, ``"r2"``, ``"mae"``, or functions of the
            prediction and y that give one number, named as they are, each differently.
        max_grad_norm: scale each step's gradient down to this norm, as ``clip_grad_norm_`` does
            over all parameters of the optimizer.
        scheduler: any of ``torch.optim.lr_scheduler`` over this optimizer. ``ReduceLROnPlateau``
            gets the epoch's training loss, or what ``stop`` watches of the validation, each time it
            is evaluated.
        scheduler_interval: step the scheduler after each ``"epoch"`` or after each ``"step"``.
        callbacks: called as ``callback(epoch, loss, model)``, with the parameters after the update
            and the loss before it. One that returns True ends the fit. They may change learning
            rates and parameters, and add groups of them to the optimizer.
        callback_every: epochs between two calls.
        progress: show a bar, with tqdm.
        log_every: print ``Epoch  100/1999 W: 1.746, b: 0.578 Cost: 0.048171`` every so many epochs.
        record_every: keep the parameters after the update of every so many epochs. One that a
            callback lets train stands in the records before with the value that it begins with.
        record_steps: keep the loss of each step.
        stop: what `gdcore.stop_when` returns.
        method: ``"auto"`` chooses; ``"stepwise"`` runs natively over the rows, ``"compressed"``
            over few rows that are equivalent, ``"eager"`` in plain PyTorch.
        strict: refuse what cannot be run natively. Otherwise it is run eagerly, and
            ``history.plan`` says why.

    Returns:
        The `History`: the loss of every epoch, the recorded parameters, the time.

    Raises:
        TypeError: an argument of another type.
        ValueError: a shape that does not fit, no rows, a count out of range, or, with ``strict``,
            what cannot be run natively. Nothing has been written then.
        ModuleNotFoundError: ``progress`` without tqdm.
        DivergenceError: the loss stopped being finite. The parameters hold the last finite values.
            (An update that goes past the finite numbers shows in the loss of the next epoch.)
        KeyboardInterrupt: Ctrl-C, answered within 100 ms (with more than a few million parameters,
            within the time of some rows; eagerly, of a step; a validation, its metrics and a
            scheduler's step are not cut short). Parameters, optimizer and generators
            are as after the last whole epoch, and the exception carries the `History` until then as
            ``history``; another fit goes on from there. So does any other exception that a callback
            raises.

    Warns:
        RuntimeWarning: before the first step, if the learning rate is above the largest with which
            full-batch SGD converges, where that is known.

    Example:
        >>> model = gdcore.nn.LinearRegression()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> history = gdcore.fit(model, torch.nn.MSELoss(), optimizer, (x, 2 * x), epochs=500)
        >>> round(model(torch.tensor([[4.0]])).item(), 3)
        8.0

    Reference:
        `gdcore.reference` for the formulas.
    """
    check_objects(model, loss_fn, optimizer)
    with turn_of(optimizer), after_fork():
        return _fit.fit(
            model,
            loss_fn,
            optimizer,
            data,
            Settings(
                epochs=epochs,
                batch_size=batch_size,
                shuffle=shuffle,
                generator=generator,
                weight=weight,
                validation=validation,
                validate_every=validate_every,
                metrics=metrics,
                max_grad_norm=max_grad_norm,
                scheduler=scheduler,
                scheduler_interval=scheduler_interval,
                callbacks=callbacks,
                callback_every=callback_every,
                progress=progress,
                log_every=log_every,
                record_every=record_every,
                record_steps=record_steps,
                stop=stop,
                method=method,
                strict=strict,
            ),
        )
