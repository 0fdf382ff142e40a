"""A history while it is being made."""

from collections.abc import Callable

import torch
from torch import Tensor

from .._native.runners import Ran
from .explanation import Plan
from .history import History, Rates
from .history_source import Source


class Recorder:
    """Takes note of what runs did."""

    def __init__(
        self,
        plan: Callable[[], Plan],
        parameters: dict[str, Tensor],
        *,
        record_every: int | None,
        validate_every: int | None,
        steps: bool,
        dtype: torch.dtype,
        source: Source | None = None,
    ) -> None:
        self._plan, self.parameters, self._dtype = plan, parameters, dtype
        self.record_every, self._validate_every, self._keeps_steps = (
            record_every,
            validate_every,
            steps,
        )
        self._source = source
        self._start: dict[str, Tensor] = {}
        if record_every is not None:  # one without memory is refused when it runs
            kept = {n: p.detach() for n, p in parameters.items() if not p.is_meta}
            self._start = {name: value.cpu().clone() for name, value in kept.items()}
        self.epochs = 0
        self.seconds = 0.0
        self.stopped = False
        self.validation: dict[str, list[float]] = {}
        self._losses: list[Tensor] = []
        self._steps: list[Tensor] = []
        self._records: list[Tensor] = []
        self._earlier: list[dict[str, Tensor]] = []
        self._constant: dict[str, Tensor] = {}
        self._rates: list[Rates] = []

    def add(self, ran: Ran, rates: list[float]) -> None:
        count = ran.losses.shape[0]  # less time than `len`
        self._losses.append(ran.losses)
        self.epochs += count
        if self._rates and self._rates[-1][0] == rates:
            self._rates[-1] = rates, self._rates[-1][1] + count
        else:
            self._rates.append((rates, count))
        if ran.records is not None:
            self._records.append(ran.records.cpu())
        if self._keeps_steps:
            self._steps.append(ran.losses if ran.step_losses is None else ran.step_losses)

    @property
    def last_loss(self) -> float | None:
        """Of the last epoch, if there was one."""
        if self.epochs == 0:
            return None
        return next(losses[-1].item() for losses in reversed(self._losses) if len(losses))

    def use(
        self, plan: Callable[[], Plan], parameters: dict[str, Tensor], source: Source | None
    ) -> None:
        """Take note of other parameters from now on.

        One that was not recorded before stands there with the value that it has now, and so does,
        from now on, one that is recorded no more.

        Raises:
            ValueError: a recorded one has another shape.
        """
        if self.record_every is not None:
            self._begin_anew(parameters)
        self._plan, self.parameters, self._source = plan, parameters, source

    def _begin_anew(self, parameters: dict[str, Tensor]) -> None:
        now = {n: p.detach().cpu().clone() for n, p in (self.parameters | parameters).items()}
        for name in parameters:
            shape = self._start.setdefault(name, now[name]).shape
            if now[name].shape != shape:
                raise ValueError(
                    f"record_every: expected {name} to stay of shape {tuple(shape)}, "
                    f"got {tuple(now[name].shape)}"
                )
        self._earlier.append(self._latest())
        for part in self._earlier:
            count = len(next(iter(part.values())))
            new = {n: now[n].expand(count, *now[n].shape) for n in parameters if n not in part}
            part.update(new)
        constant = self._constant | now
        self._constant = {n: value for n, value in constant.items() if n not in parameters}
        self._records = []

    def add_parameters(self) -> None:
        """Record the parameters as they are."""
        flat = torch.cat([p.detach().reshape(-1).cpu() for p in self.parameters.values()])
        self._records.append(flat[None])

    def history(self) -> History:
        return History(
            loss=_joined(self._losses, self._dtype),
            parameters=self._recorded(),
            record_every=self.record_every,
            seconds=self.seconds,
            plan=self._plan(),
            step_loss=_joined(self._steps, self._dtype) if self._keeps_steps else None,
            validation={
                name: torch.tensor(values, dtype=torch.float64, device="cpu")
                for name, values in self.validation.items()
            },
            validate_every=self._validate_every,
            stopped=self.stopped,
            start=self._start,
            _source=self._source,
            _rates=tuple(self._rates),
        )

    def _recorded(self) -> dict[str, Tensor]:
        if self.record_every is None:
            return {}
        latest = self._latest()
        if not self._earlier:
            return latest
        parts = [*self._earlier, latest]
        return {name: torch.cat([part[name] for part in parts]) for name in latest}

    def _latest(self) -> dict[str, Tensor]:
        """The records since the parameters became those that they are."""
        sizes = [parameter.numel() for parameter in self.parameters.values()]
        if self._records:
            columns = torch.cat(self._records).split(sizes, dim=1)
        else:
            columns = tuple(torch.empty((0, size), device="cpu") for size in sizes)
        recorded = {
            name: values.reshape(len(values), *parameter.shape).to(parameter.dtype)
            for (name, parameter), values in zip(self.parameters.items(), columns, strict=True)
        }
        count = sum(map(len, self._records))
        for name, value in self._constant.items():
            recorded[name] = value.expand(count, *value.shape)
        return recorded


def _joined(parts: list[Tensor], dtype: torch.dtype) -> Tensor:
    if not parts:
        return torch.empty(0, dtype=dtype, device="cpu")
    return torch.cat(parts) if len(parts) > 1 else parts[0]
