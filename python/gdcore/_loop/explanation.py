"""What `gdcore.explain` and a fit's history say about the way that is taken, and why."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .cost import Costs

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """How a fit would run. Prints as a short tree.

    Attributes:
        method: ``"stepwise"``, ``"compressed"`` or ``"eager"``; of batches that are read one by one
            ``"as read"`` before any is, and ``"stepwise and eager"`` where some went either way.
        why: what decided; where some batches are run eagerly, the reason.
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
        device: where the data are.

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
        └─ otherwise: compressed 184 µs, eager 25 ms

    Reference:
        ``gdcore._loop.cost`` states the cost model, ``gdcore._loop.cuda_cost`` the one for CUDA,
        whose constants are estimated from data sheets and not measured.
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
    weighted: bool = False
    device: str = "cpu"

    def with_batches(self, method: str, why: str | None = None, where: str | None = None) -> "Plan":
        """The plan of data that are read, once some more of them have gone this way."""
        if method in self.method.split(" and "):
            return self
        both = method if self.method == "as read" else "stepwise and eager"
        return replace(self, method=both, why=why or self.why, where=where or self.where)

    def __str__(self) -> str:
        lines = list(self._lines())
        return "\n".join([lines[0], *(f"├─ {line}" for line in lines[1:-1]), f"└─ {lines[-1]}"])

    def _lines(self) -> Iterator[str]:
        batch = "full batch" if self.batch_size is None else f"batches of {self.batch_size}"
        rows = f"{_count(self.rows, 'row')}, {batch}" if self.rows else "rows as they are read"
        yield f"fit: {_count(self.epochs, 'epoch')} over {rows}"
        if self.shape is not None:
            n, q = self.shape
            yield f"features: {n} × {q} from {', '.join(self.formed)}"
        if self.parameters:
            yield f"parameters: {', '.join(self.parameters)}"
        if self.mean is not None:
            weighted = "weighted " if self.weighted else ""
            yield f"loss: {weighted}{'mean' if self.mean else 'sum'} of squared errors"
        if self.device != "cpu":
            yield f"device: {self.device}"
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
        # Those of `gdcore._loop.cuda_cost`.
        source = "" if self.device == "cpu" else "estimated from data sheets, not measured: "
        yield f"cost: {source}{prepare}{_seconds(cost.epoch)} an epoch, {_seconds(total)} in all"
        yield f"otherwise: {others}"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _seconds(seconds: float) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.2g} µs"
