"""A least-squares problem as its spectrum, and the same problem in standardised features."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .descent import Descents, Settings, sgd_settings
from .design import Design, Reduced
from .lanczos import MOST_ITERATIONS, krylov_spectrum, nearest_optimum, random_spectrum
from .spectrum import MOST_EXACT, Spectrum, exact_spectrum
from .unit_columns import TOLD, UnitColumns

__all__ = ["Quadratic"]


@dataclasses.dataclass(frozen=True)
class _Standardisation:
    """Θ' (q, k) of standardised features from Θ: the same predictions."""

    deviation: Tensor
    mean: Tensor
    constant: int | None

    def features(self, rows: Tensor) -> Tensor:
        if self.constant is not None:
            rows = rows - rows[:, self.constant, None] * self.mean
        return rows / self.deviation

    def theta(self, theta: Tensor) -> Tensor:
        scaled = theta * self.deviation[:, None]
        if self.constant is not None:
            scaled[self.constant] += self.mean @ theta
        return scaled


def _standardisation(reduced: Reduced) -> _Standardisation:
    """Means and standard deviations of the features, from the reduced rows: these have the same
    inner products. Without an intercept features are scaled only, by their root mean square.
    """
    rows = reduced.rows
    sizes = torch.linalg.vector_norm(rows, dim=0)
    held = torch.nonzero(reduced.constant & (sizes > 0)).flatten()
    constant = int(held[0]) if len(held) else None
    mean = torch.zeros(rows.shape[1], dtype=torch.float64, device="cpu")
    centred = rows
    if constant is not None:
        ones = rows[:, constant]
        mean = torch.where(reduced.constant, 0.0, (ones @ rows) / (ones @ ones))
        centred = rows - ones[:, None] * mean
    norms = torch.linalg.vector_norm(centred, dim=0)
    varies = (norms > reduced.noise * sizes) & ~reduced.constant
    deviation = torch.where(varies, norms / reduced.total**0.5, 1.0)
    return _Standardisation(deviation, torch.where(varies, mean, 0.0), constant)


class Quadratic:
    """The loss of a model that is affine in its parameters, as a function of them."""

    def __init__(
        self,
        design: Design,
        reduced: Reduced | None = None,
        standardisation: _Standardisation | None = None,
    ) -> None:
        self.design = design
        self.standardisation = standardisation
        small = min(design.shape[0], len(design.target)) <= MOST_EXACT
        self._reduced = reduced or (design.reduce() if small else None)
        start = self._theta()
        self.spectrum = (
            random_spectrum(design, start)
            if self._reduced is None
            else exact_spectrum(self._reduced, start)
        )

    def _theta(self) -> Tensor:
        """Θ as the parameters are now."""
        theta = self.design.theta()
        return theta if self.standardisation is None else self.standardisation.theta(theta)

    def _spectrum_now(self) -> Spectrum:
        theta, spectrum = self._theta(), self.spectrum
        if self._reduced is None:
            return krylov_spectrum(self.design, theta)
        if torch.equal(theta, spectrum.start):
            return spectrum
        moved = spectrum.singular[:, None] * (spectrum.directions @ (theta - spectrum.start))
        return dataclasses.replace(spectrum, start=theta, residual=spectrum.residual + moved)

    def standardised(self) -> Quadratic:
        if self._reduced is None:
            raise ValueError(
                f"model: expected at most {MOST_EXACT} features to standardise, "
                f"got {self.design.shape[0]}"
            )
        if self.standardisation is not None:
            return self
        standardisation = _standardisation(self._reduced)
        rows = standardisation.features(self._reduced.rows)
        return Quadratic(
            self.design, dataclasses.replace(self._reduced, rows=rows), standardisation
        )

    @cached_property
    def _unit(self) -> UnitColumns | None:
        """Where the columns' lengths differ, what they say at one length, if it is more."""
        if self._reduced is None or not UnitColumns.differ(self._reduced):
            return None
        unit = UnitColumns(self._reduced, MOST_EXACT)
        known = self.spectrum.rank
        return unit if unit.rank > known or (unit.rank == known and unit.nearest) else None

    @property
    def rank(self) -> int:
        """Directions that bend, for each output; at least so many where not all were found."""
        return self.spectrum.rank if self._unit is None else self._unit.rank

    @cached_property
    def flattest(self) -> tuple[float, Tensor]:
        """Of the directions that bend: the smallest curvature, and the direction as a row."""
        spectrum = self.spectrum
        if self._unit is None:
            return float(spectrum.curvatures[self.rank - 1]), spectrum.directions[self.rank - 1]
        singular, direction = self._unit.flattest
        return 2 * spectrum.scale * singular**2, direction

    @property
    def nearest(self) -> bool:
        """Whether it is told from rounding which of several optima is the nearest to the start."""
        spectrum, unit = self.spectrum, self._unit
        if not spectrum.exact or self.rank in (0, self.design.shape[0]):
            return True
        if unit is not None:
            return unit.nearest
        return spectrum.tolerance < TOLD * float(spectrum.singular[self.rank - 1])

    @cached_property
    def _conjugate_gradients(self) -> tuple[Tensor, float]:
        largest = float(self.spectrum.singular[0]) if len(self.spectrum.singular) else 0.0
        found = nearest_optimum(self.design, self.spectrum.start, largest)
        if found is None:
            raise ValueError(
                f"model: expected at most {MOST_EXACT} features, or an optimum that conjugate "
                f"gradients find in {MOST_ITERATIONS} iterations, got {self.design.shape[0]} "
                "features and more iterations"
            )
        return found

    def optimum(self) -> Tensor:
        """Θ of least loss, the nearest to the parameters where there are several."""
        spectrum = self.spectrum
        if self._reduced is None:
            return self._conjugate_gradients[0]
        if self._unit is not None:
            residual = self._reduced.rows @ spectrum.start - self._reduced.target
            return spectrum.start + self._unit.step(residual)
        held = spectrum.singular > spectrum.tolerance
        safe = torch.where(held, spectrum.singular, torch.inf)
        return spectrum.away(-spectrum.residual / safe[:, None])

    def _lost(self) -> float:
        """What no parameter can take away, before scaling."""
        spectrum = self.spectrum
        if self._reduced is None:
            return self._conjugate_gradients[1]
        if self._unit is not None:
            return spectrum.rest + self._unit.lost(self._reduced.target)
        assert spectrum.target is not None
        held = spectrum.singular > spectrum.tolerance
        return spectrum.rest + float(spectrum.target[~held].square().sum())

    def optimal_loss(self) -> float:
        """The least loss: 0 where it cannot be told from rounding of the targets."""
        spectrum, left = self.spectrum, self._lost()
        if self._reduced is not None:
            size = spectrum.rest + float(self._reduced.target.square().sum())
            left = left if left > (64 * torch.finfo(torch.float64).eps) ** 2 * size else 0.0
        return spectrum.scale * left

    def complete(self, what: str, spectrum: Spectrum | None = None) -> Spectrum:
        """The spectrum, if it holds all that is needed for that figure."""
        spectrum = self.spectrum if spectrum is None else spectrum
        if not spectrum.complete:
            raise ValueError(
                f"{what}: expected at most {MOST_EXACT} features, beyond which it is not known, "
                f"got {self.design.shape[0]}"
            )
        return spectrum

    def _moved(self, parameters: dict[str, Tensor], origin: Tensor) -> Tensor:
        """(m, c, places): from Θ at the origin to the parameters, along the directions."""
        thetas = self.design.thetas(parameters)
        if self.standardisation is not None:
            thetas = torch.stack([self.standardisation.theta(theta) for theta in thetas])
        directions = self.spectrum.directions
        away = (thetas - origin).permute(1, 2, 0)
        places = away.shape[-1]
        flat = away.reshape(directions.shape[1], -1)
        return (directions @ flat).reshape(len(directions), -1, places)

    def losses(self, parameters: dict[str, Tensor]) -> Tensor:
        """(places,): the loss at each."""
        spectrum = self.spectrum
        if not spectrum.exact:
            return self._losses_over_rows(self.design.thetas(parameters))
        moved = self._moved(parameters, spectrum.start)
        residual = spectrum.residual[..., None] + spectrum.singular[:, None, None] * moved
        return spectrum.scale * (residual.square().sum((0, 1)) + spectrum.rest)

    def _losses_over_rows(self, thetas: Tensor) -> Tensor:
        total = torch.zeros(len(thetas), dtype=torch.float64, device="cpu")
        for features, target, weight in self.design.blocks(torch.float64, 2**22):
            squares = (features @ thetas.to(features.device) - target).square_()
            squares = squares if weight is None else squares * weight
            total += squares.sum((1, 2)).cpu()
        return self.spectrum.scale * total

    def along(self, parameters: dict[str, Tensor]) -> Tensor:
        """(places, directions): distances from the optimum along those that bend."""
        if not self.spectrum.exact:
            raise ValueError(
                f"along_directions: expected at most {MOST_EXACT} features, beyond which not all "
                f"are known, got {self.design.shape[0]}"
            )
        moved = self._moved(parameters, self.optimum())[: self.spectrum.rank]
        return moved.reshape(-1, moved.shape[-1]).T

    def descent(self, optimizer: Any, epochs: int = 0, *, above_optimum: bool = False) -> Descents:
        """The path of an SGD from the parameters, and its momentum buffers, as they are now.

        Args:
            optimizer: of the parameters.
            epochs: how many will be asked for: where not all directions are known, those that were
                found hold no more than as many updates as there are.
            above_optimum: count only the loss that training can take away.
        """
        settings = Settings.of(sgd_settings(optimizer, self.design.parameters))
        spectrum = self._spectrum_now()
        most = len(spectrum.singular) + 1
        if not spectrum.complete and epochs > most:
            raise ValueError(
                f"epochs: expected at most {most} with more than {MOST_EXACT} features, "
                f"got {epochs}"
            )
        if above_optimum:
            self.complete("epochs_to", spectrum)
            held = (spectrum.singular > spectrum.tolerance)[:, None]
            residual, rest = torch.where(held, spectrum.residual, 0.0), 0.0
            if self.rank > spectrum.rank:  # beside the others' rounding it does not move
                hidden = float((spectrum.residual - residual).square().sum())
                rest = max(spectrum.rest + hidden - self._lost(), 0.0)
            spectrum = dataclasses.replace(spectrum, rest=rest, residual=residual)
        decays = bool((settings.weight_decay != 0).any())
        if decays and not spectrum.exact:
            raise ValueError(
                f"optimizer: expected weight_decay=0 with more than {MOST_EXACT} features, got "
                f"{settings.weight_decay.item():g}"
            )
        return Descents(
            spectrum,
            spectrum.residual[..., None],
            spectrum.coordinates[..., None] if decays else None,
            settings,
            self._buffer(optimizer, spectrum),
        )

    def _buffer(self, optimizer: Any, spectrum: Spectrum) -> Tensor | None:
        states = [optimizer.state.get(p, {}) for p in self.design.parameters]
        buffers = [state.get("momentum_buffer") for state in states]
        present = [buffer for buffer in buffers if buffer is not None]
        if not present:
            return None
        if len(present) < len(buffers) or not spectrum.exact or self.standardisation is not None:
            raise ValueError(
                "optimizer: expected momentum buffers of all parameters or none (none in "
                f"standardised features, or beyond {MOST_EXACT}), got {len(present)} of them"
            )
        return (spectrum.directions @ self.design.theta(present))[..., None]
