"""What a sweep leaves behind: its runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .descent import Settings, sgd_settings
from .design import Design
from .spectrum import MOST_EXACT, exact_spectrum
from .updates import kind_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Run", "Sweep", "features", "sgd_runs"]


@dataclass(frozen=True, eq=False)
class Run:
    """One training of a `Sweep`.

    Attributes:
        index: its place in the sweep.
        settings: what was varied, with its values here; ``initial`` is a place in that list.
        loss: (epochs,) in float64, of each epoch before its update.
        final_loss: of the parameters after the last update.
        diverged: the first epoch whose loss is not finite in the parameters' dtype, or None.
        parameters: at the end, by name, in float64; not finite where the run diverged.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> model = gdcore.nn.LinearRegression(bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=3 / 28)
        >>> (run,) = gdcore.sweep(model, torch.nn.MSELoss(), optimizer, (x, 2 * x), epochs=1)
        >>> round(run.parameters["weight"].item(), 6)
        2.0

    Reference:
        `gdcore.sweep`, which makes it.
    """

    index: int
    settings: dict[str, float]
    loss: Tensor
    final_loss: float
    diverged: int | None
    parameters: dict[str, Tensor]

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value:g}" for key, value in self.settings.items())
        end = (
            f"loss {self.final_loss:.4g}"
            if self.diverged is None
            else f"diverged at epoch {self.diverged}"
        )
        return f"Run({settings}: {end})"


@dataclass(frozen=True, eq=False)
class Sweep(Sequence[Run]):
    """The runs of a sweep, in the order of all combinations: the last list varies fastest.

    Attributes:
        varied: each list that was given, by name; of the starts, their places.
        settings: for each of these names, its value in every run.
        loss: (runs, epochs) in float64, of each epoch before its update.
        final_loss: (runs,), of the parameters after the last update.
        diverged: (runs,), the first epoch whose loss is not finite in the parameters' dtype, or -1.
        method: ``"compressed"`` or ``"stepwise"``.
        seconds: wall time.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> model = gdcore.nn.LinearRegression(bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> loss_fn = torch.nn.MSELoss()
        >>> found = gdcore.sweep(model, loss_fn, optimizer, (x, x), lr=[0.01, 0.1, 0.3], epochs=100)
        >>> found.best().settings, found[2].diverged is not None
        ({'lr': 0.1}, True)

    Reference:
        `gdcore.sweep`, which makes it.
    """

    varied: dict[str, list[float]]
    settings: dict[str, list[float]]
    loss: Tensor
    final_loss: Tensor
    diverged: Tensor
    method: str
    seconds: float
    _theta: Tensor
    _design: Design
    _optimizer: Any

    def __len__(self) -> int:
        return len(self.final_loss)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        diverged = int(self.diverged[place])
        return Run(
            place,
            {key: values[place] for key, values in self.settings.items()},
            self.loss[place],
            float(self.final_loss[place]),
            None if diverged < 0 else diverged,
            self._design.split(self._theta[..., place]),
        )

    def best(self) -> Run:
        """The run with the smallest final loss.

        Raises:
            ValueError: all diverged.
        """
        finite = torch.where(self.diverged < 0, self.final_loss, torch.inf)
        if not bool(finite.isfinite().any()):
            raise ValueError("sweep: expected a run that did not diverge, got none")
        run: Run = self[int(finite.argmin())]
        return run

    def apply(self, run: Run | None = None) -> None:
        """Give the model the parameters with which a run ended.

        Args:
            run: of this sweep; the best if not given.

        Raises:
            ValueError: the run diverged.
        """
        run = self.best() if run is None else run
        if run.diverged is not None:
            raise ValueError(f"run: expected one that did not diverge, got {run}")
        with torch.no_grad():
            for name, parameter in zip(self._design.names, self._design.parameters, strict=True):
                parameter.copy_(run.parameters[name])

    @cached_property
    def largest_stable_lr(self) -> Tensor | None:
        """(runs,): the rate above which full-batch SGD with each run's settings diverges, or None.

        None for other optimizers, and for more features than `curvature` treats exactly.
        """
        if kind_of(self._optimizer) != "sgd" or features(self._design) > MOST_EXACT:
            return None
        spectrum = exact_spectrum(self._design.reduce(), self._design.theta())
        settings = sgd_runs(self._optimizer, self._design, self.settings, len(self))
        largest = float(spectrum.curvatures[0])
        return None if settings is None else settings.largest_stable_lr(largest)

    def to_dict(self) -> dict[str, Any]:
        """Settings and outcomes in plain numbers, as JSON takes them."""
        runs = [
            {
                **{key: values[i] for key, values in self.settings.items()},
                "final_loss": loss if math.isfinite(loss) else None,
                "diverged": None if at < 0 else at,
            }
            for i, (loss, at) in enumerate(
                zip(self.final_loss.tolist(), self.diverged.tolist(), strict=True)
            )
        ]
        epochs = self.loss.shape[1]
        return {"method": self.method, "epochs": epochs, "seconds": self.seconds, "runs": runs}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the final loss against the learning rate; see `gdcore.plotting.sweep`."""
        from .. import plotting

        return plotting.sweep(self, ax=ax)

    def __repr__(self) -> str:
        lists = " × ".join(f"{len(values)} {key}" for key, values in self.varied.items())
        gone = int((self.diverged >= 0).sum())
        best = "all diverged" if gone == len(self) else f"best {self.best()}"
        lost = f", {gone} diverged" if 0 < gone < len(self) else ""
        return (
            f"Sweep({len(self)} runs ({lists or 'nothing varied'}) of {self.loss.shape[1]} epochs"
            f"{lost}; {best}; {self.method}, {self.seconds:.3g} s)"
        )


def features(problem: Design) -> int:
    return min(problem.shape[0], len(problem.target))


def sgd_runs(
    optimizer: Any, problem: Design, settings: dict[str, list[float]], runs: int
) -> Settings | None:
    """The settings of SGD runs that treat all parameters alike."""
    try:
        group = sgd_settings(optimizer, problem.parameters)
    except ValueError:
        return None
    varied = {
        key: torch.tensor(values, dtype=torch.float64, device="cpu")
        for key, values in settings.items()
        if key != "initial"
    }
    return Settings.of(group, runs, **varied)
