"""What a fit leaves behind: its record, and the error of one that diverged."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .history_source import Source

__all__ = ["DivergenceError", "History", "Rates"]

Rates = tuple[list[float], int]
"""The rates of all groups, and the number of epochs in which they were these."""


@dataclass(frozen=True, eq=False)
class History:
    """The record of a fit.

    ``first + second`` is the record of two fits, one after the other.

    Attributes:
        loss: one value for each epoch, taken before that epoch's update, in the model's dtype, of
            compressed rows in float64; in minibatches the mean of the batches' losses, weighted by
            their rows.
        parameters: for each parameter's name, its values after the update of epochs
            0, ``record_every``, 2 ``record_every``, …: shape (records, \\*the parameter's). Empty
            where nothing was recorded.
        start: the parameters by name as they were before the first update, where they are recorded.
        record_every: epochs between two records, or None.
        seconds: wall time of the training loop.
        lr: the learning rate of each epoch's update, float64: shape (epochs,), or (epochs, groups)
            where the optimizer has several groups; NaN for one that a callback had not yet added.
        plan: the way that the fit was run, and why; as text: ``str(history.plan)``.
        step_loss: the loss of each step, with ``record_steps=True``, else None.
        validation: the loss of the validation data, as ``"loss"``, and each of the metrics, in
            float64, after the update of epochs 0, ``validate_every``, ….
        validate_every: epochs between two validations, or None.
        stopped: whether a rule or a callback ended the fit.

    Example:
        >>> model = gdcore.nn.LinearRegression()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> loss_fn = torch.nn.MSELoss()
        >>> history = gdcore.fit(model, loss_fn, optimizer, (x, 2 * x), epochs=5, record_every=2)
        >>> len(history.loss), list(history.recorded_epochs), history.parameters["weight"].shape
        (5, [0, 2, 4], torch.Size([3, 1, 1]))
        >>> data, options = (x, 2 * x), {"epochs": 4, "record_every": 2}
        >>> first = gdcore.fit(model, loss_fn, optimizer, data, **options)
        >>> both = first + gdcore.fit(model, loss_fn, optimizer, data, **options)
        >>> len(both.loss), list(both.recorded_epochs)
        (8, [0, 2, 4, 6])
    """

    loss: Tensor
    parameters: dict[str, Tensor]
    record_every: int | None
    seconds: float
    plan: Any = None
    step_loss: Tensor | None = None
    validation: dict[str, Tensor] = field(default_factory=dict)
    validate_every: int | None = None
    stopped: bool = False
    start: dict[str, Tensor] = field(default_factory=dict)
    _source: Source | None = field(default=None, repr=False)
    _rates: tuple[Rates, ...] = field(default=(), repr=False)

    @cached_property
    def lr(self) -> Tensor:
        """The learning rate of each epoch's update: see above."""
        # Made when it is asked for, which takes as long as many an epoch.
        return _rates(self._rates)

    @property
    def recorded_epochs(self) -> range:
        """The epochs after whose update the parameters were recorded."""
        return _every(self.record_every, self.parameters)

    @property
    def validated_epochs(self) -> range:
        """The epochs after whose update the validation data were looked at."""
        return _every(self.validate_every, self.validation)

    def __add__(self, other: object) -> History:
        """This history and then the other, as one fit of all their epochs would leave it.

        Where the first one's epochs are not a multiple of ``record_every`` (or
        ``validate_every``), such a fit records nothing where the second one did, and the result
        does without that. It began where the first one did.

        Raises:
            ValueError: what they hold does not fit together: other parameters or metrics, or such
                a fit would have recorded epochs that the second one did not.
        """
        if not isinstance(other, History):
            return NotImplemented
        epochs = len(self.loss)
        joined = {}
        for name, mine, others, kept in (
            ("record_every", self.record_every, other.record_every, "parameters"),
            ("validate_every", self.validate_every, other.validate_every, "validation"),
        ):
            held, added = getattr(self, kept), getattr(other, kept)
            if (held or added) and mine != others:
                raise ValueError(
                    f"{name}: expected both histories to have the same, got {mine} and {others}"
                )
            if held.keys() != added.keys():
                raise ValueError(f"{kept}: expected the same, got {list(held)} and {list(added)}")
            if held and mine and epochs % mine:
                if -epochs % mine < len(other.loss):
                    raise ValueError(
                        f"{name}: expected the first history's epochs to be a multiple of {mine}, "
                        f"got {epochs}"
                    )
                joined[kept] = held
            else:
                joined[kept] = _joined(held, added)
        both = len(self.lr) > 0 and len(other.lr) > 0
        if both and self.lr.shape[1:] != other.lr.shape[1:]:
            raise ValueError("lr: expected optimizers with as many groups, got others")
        steps = (self.step_loss, other.step_loss)
        return History(
            loss=torch.cat([self.loss, other.loss]),
            parameters=joined["parameters"],
            record_every=self.record_every,
            seconds=self.seconds + other.seconds,
            plan=other.plan,
            step_loss=None if steps[0] is None or steps[1] is None else torch.cat(steps),  # type: ignore[arg-type]
            validation=joined["validation"],
            validate_every=self.validate_every,
            stopped=other.stopped,
            start=self.start,
            _source=other._source if _of_one(self, other) else None,
            _rates=self._rates + other._rates,
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain numbers, strings, lists and dictionaries, for JSON or a table.

        Returns:
            A dictionary with a key for every attribute, and for the recorded and validated epochs.
        """
        return {
            "loss": self.loss.tolist(),
            "step_loss": None if self.step_loss is None else self.step_loss.tolist(),
            "lr": self.lr.tolist(),
            "record_every": self.record_every,
            "recorded_epochs": list(self.recorded_epochs),
            "parameters": {name: values.tolist() for name, values in self.parameters.items()},
            "start": {name: value.tolist() for name, value in self.start.items()},
            "validate_every": self.validate_every,
            "validated_epochs": list(self.validated_epochs),
            "validation": {name: values.tolist() for name, values in self.validation.items()},
            "seconds": self.seconds,
            "plan": None if self.plan is None else str(self.plan),
            "stopped": self.stopped,
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the loss over the epochs, and the validation's where there is one.

        Args:
            ax: where to draw; by default on a new figure.

        Returns:
            The Axes.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        from .. import plotting

        ax = plotting.loss_curve(self.loss.tolist(), ax=ax, label="training")
        if "loss" in self.validation:
            plotting.loss_curve(
                self.validation["loss"].tolist(),
                list(self.validated_epochs),
                ax=ax,
                label="validation",
                color=plotting.ORANGE,
                linestyle="--",
            )
        return ax

    def __repr__(self) -> str:
        epochs = len(self.loss)
        parts = [f"{epochs} epoch{'' if epochs == 1 else 's'}"]
        if epochs:
            parts[0] += " (stopped)" if self.stopped else ""
            parts.append(f"loss {self.loss[0]:.6g} to {self.loss[-1]:.6g}")
        parts += [f"validation {name} {v[-1]:.6g}" for name, v in self.validation.items() if len(v)]
        parts.append(f"{self.seconds:.3g} s")
        if self.plan is not None:
            parts.append(self.plan.method)
        return f"History({', '.join(parts)})"

    def _repr_html_(self) -> str:
        from .history_html import table

        return table(self)


def _rates(runs: tuple[Rates, ...]) -> Tensor:
    """The rate of every epoch; of each group, where there are several."""
    if len(runs) == 1 and len(runs[0][0]) == 1:  # the usual case takes neither time nor memory
        (rate,), count = runs[0]
        return torch.full((), rate, dtype=torch.float64, device="cpu").expand(count)
    groups = max((len(rates) for rates, _ in runs), default=1)
    missing = float("nan")  # the rate of a group that a callback added later
    rows = [rates + [missing] * (groups - len(rates)) for rates, _ in runs]
    table = torch.tensor(rows, dtype=torch.float64, device="cpu")
    counts = torch.tensor([count for _, count in runs], dtype=torch.int64, device="cpu")
    values = table.reshape(-1, groups).repeat_interleave(counts, 0)
    return values.squeeze(1) if values.shape[1] == 1 else values


def _every(every: int | None, values: dict[str, Tensor]) -> range:
    if every is None or not values:
        return range(0)
    count = next(iter(values.values())).shape[0]
    return range(0, count * every, every)


def _joined(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([values, second[name]]) for name, values in first.items()}


def _of_one(first: History, second: History) -> bool:
    """Whether both are fits of the same model to the same data."""
    if first._source is None or second._source is None:
        return False
    one, other = first._source.trained(), second._source.trained()
    return one is not None and other is not None and one.is_of(other)


class DivergenceError(ArithmeticError):
    """The loss stopped being finite: the learning rate is too high, or the data are not finite.

    The parameters hold the last values that were finite.

    Attributes:
        epoch: the first whose loss is not finite.
        lr: the learning rate.
        largest_stable_lr: the largest rate that converges, or None where it is not known.
        history: the record up to and with that epoch.
    """

    def __init__(
        self, epoch: int, lr: float, largest_stable_lr: float | None, history: History
    ) -> None:
        self.epoch = epoch
        self.lr = lr
        self.largest_stable_lr = largest_stable_lr
        self.history = history
        limit = ""
        if largest_stable_lr is not None:
            side = "above" if lr > largest_stable_lr else "below"
            limit = f", {side} {largest_stable_lr:g}, the largest that converges"
        super().__init__(
            f"the loss is {history.loss[-1].item()} at epoch {epoch} with lr={lr:g}{limit}; "
            "use a smaller learning rate, or check the data for values that are not finite"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.epoch, self.lr, self.largest_stable_lr, self.history)
