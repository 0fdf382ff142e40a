"""When a fit is to stop before its epochs are done."""

import math
from dataclasses import dataclass

from . import _checks
from ._native.problem import StopRule

__all__ = ["Stop", "stop_when"]


@dataclass(frozen=True)
class Stop:
    """A rule made by `stop_when`."""

    rule: StopRule
    watch: str | None
    restore_best: bool


def stop_when(
    *,
    loss_below: float | None = None,
    no_improvement_for: int | None = None,
    gradient_norm_below: float | None = None,
    watch: str | None = None,
    restore_best: bool = False,
) -> Stop:
    """A rule for `gdcore.fit`, which stops as soon as any of its conditions holds.

    ``L < loss_below``, ``e - argmin L ≥ no_improvement_for``, or ``‖∇L‖₂ < gradient_norm_below``,
    with L the loss of the epochs so far and e the last of them.

    On the full batch the rule is looked at once the loss of an epoch is known, before its update:
    that loss is the last of the history, and its update is not made. In minibatches, and where
    validation is watched, it is looked at after the epoch. A new fit begins with a new best.

    Args:
        loss_below: stop at a loss below this.
        no_improvement_for: stop after so many epochs without a loss below the best one.
        gradient_norm_below: stop at a gradient, of all that the optimizer trains and before it is
            clipped, whose norm is below this. For full batches only.
        watch: what the conditions on the loss look at: by default the training loss; ``"loss"`` for
            that of the validation data, or one of ``metrics``. Larger is better for ``"r2"``, which
            ``loss_below`` cannot watch.
        restore_best: give the parameters (and buffers) back the values at which what is watched was
            best. The optimizer's state stays that of the last epoch.

    Returns:
        The rule, to be given as ``stop=``.

    Raises:
        TypeError: an argument of another type.
        ValueError: no condition at all, one that can never hold, or ``restore_best`` without
            something to watch.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> model = gdcore.nn.LinearRegression()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> stop = gdcore.stop_when(loss_below=1e-3)
        >>> data, loss_fn = (x, 2 * x), torch.nn.MSELoss()
        >>> history = gdcore.fit(model, loss_fn, optimizer, data, epochs=10_000, stop=stop)
        >>> len(history.loss) < 1000, history.loss[-1].item() < 1e-3, history.stopped
        (True, True, True)

    Reference:
        Prechelt, Early Stopping - But When?, 1998.
    """
    for name, value in (("loss_below", loss_below), ("gradient_norm_below", gradient_norm_below)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
        if math.isnan(value):
            raise ValueError(f"{name}: expected a number that a loss can be below, got {value}")
    if gradient_norm_below is not None and gradient_norm_below <= 0:
        raise ValueError(f"gradient_norm_below: expected more than 0, got {gradient_norm_below}")
    if no_improvement_for is not None:
        no_improvement_for = _checks.integer("no_improvement_for", no_improvement_for)
        if no_improvement_for < 1:
            raise ValueError(f"no_improvement_for: expected at least 1, got {no_improvement_for}")
    if watch is not None and not isinstance(watch, str):
        raise TypeError(f"watch: expected a string, got {type(watch).__name__}")
    rule = StopRule(loss_below, no_improvement_for, gradient_norm_below)
    if all(condition is None for condition in rule):
        raise ValueError("stop_when: expected at least one condition, got none")
    if watch == "r2" and loss_below is not None:
        raise ValueError("loss_below: expected a loss to watch, got watch='r2'")
    if watch is not None and loss_below is None and no_improvement_for is None:
        raise ValueError("watch: expected with loss_below or no_improvement_for, got neither")
    if restore_best and watch is None:
        raise ValueError("restore_best: expected what to watch of the validation, got watch=None")
    return Stop(rule, watch, restore_best)


class RuleState:
    """A rule, and the best that it has seen."""

    def __init__(self, rule: StopRule) -> None:
        self.rule = rule
        self.best = math.inf
        self._since = 0
        self._seen = False

    def holds(self, loss: float, gradient_norm: float | None = None, epochs: int = 1) -> bool:
        """Whether to stop at this loss, which comes so many epochs after the one before."""
        if loss < self.best:  # which a loss that is no number is not
            self.best, self._since = loss, 0
        else:
            self._since += epochs
        below, patience, norm_below = self.rule
        return (
            (below is not None and loss < below)
            or (patience is not None and self._since >= patience)
            or (norm_below is not None and gradient_norm is not None and gradient_norm < norm_below)
        )
