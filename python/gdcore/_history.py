"""What a fit leaves behind: its record, and the error of one that diverged."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["DivergenceError", "History"]


@dataclass(frozen=True, eq=False)
class History:
    """The record of a fit.

    Attributes:
        loss: one value for each epoch, taken before that epoch's update, in the model's dtype.
        parameters: for each parameter's name, its values after the update of epochs
            0, ``record_every``, 2 ``record_every``, …: shape (records, \\*the parameter's). Empty
            where nothing was recorded.
        record_every: epochs between two records, or None.
        seconds: wall time of the training loop.

    Example:
        >>> model = gdcore.nn.LinearRegression()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> loss_fn = torch.nn.MSELoss()
        >>> history = gdcore.fit(model, loss_fn, optimizer, (x, 2 * x), epochs=5, record_every=2)
        >>> len(history.loss), list(history.recorded_epochs), history.parameters["weight"].shape
        (5, [0, 2, 4], torch.Size([3, 1, 1]))
    """

    loss: Tensor
    parameters: dict[str, Tensor]
    record_every: int | None
    seconds: float

    @property
    def recorded_epochs(self) -> range:
        """The epochs after whose update the parameters were recorded."""
        if self.record_every is None:
            return range(0)
        records = next(iter(self.parameters.values())).shape[0]
        return range(0, records * self.record_every, self.record_every)

    def __repr__(self) -> str:
        epochs = len(self.loss)
        ends = f", loss {self.loss[0]:.6g} to {self.loss[-1]:.6g}" if epochs else ""
        return f"History({epochs} epochs{ends}, {self.seconds:.3g} s)"


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
        limit = "" if largest_stable_lr is None else f", above {largest_stable_lr:g}"
        super().__init__(
            f"the loss is {history.loss[-1].item()} at epoch {epoch} with lr={lr:g}{limit}; "
            "use a smaller learning rate, or check the data for values that are not finite"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.epoch, self.lr, self.largest_stable_lr, self.history)
