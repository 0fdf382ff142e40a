"""A least-squares problem as its spectrum, and the same problem in standardised features."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from .descent import Descents, Settings, sgd_settings
from .design import Design, Reduced
from .spectrum import MOST_EXACT, Spectrum, exact_spectrum, krylov_spectrum

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
    mean = torch.zeros(rows.shape[1], dtype=torch.float64)
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
            self._krylov(start) if self._reduced is None else exact_spectrum(self._reduced, start)
        )

    def _theta(self) -> Tensor:
        """Θ as the parameters are now."""
        theta = self.design.theta()
        return theta if self.standardisation is None else self.standardisation.theta(theta)

    def _krylov(self, start: Tensor) -> Spectrum:
        """At an optimum no residual shows the curvatures; that of a place beside it does."""
        found = krylov_spectrum(self.design, start)
        if len(found.singular):
            return found
        generator = torch.Generator().manual_seed(0)
        beside = torch.randn(start.shape, generator=generator, dtype=torch.float64)
        other = krylov_spectrum(self.design, start + beside)
        return dataclasses.replace(
            other,
            start=start,
            residual=torch.zeros_like(other.residual),
            rest=found.rest,
            complete=True,
        )

    def _spectrum_now(self) -> Spectrum:
        theta, spectrum = self._theta(), self.spectrum
        if torch.equal(theta, spectrum.start):
            return spectrum
        if self._reduced is None:
            return self._krylov(theta)
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

    def optimum(self) -> Tensor:
        """Θ of least loss, the nearest to the parameters where there are several."""
        spectrum = self.complete("optimum")
        held = spectrum.singular > spectrum.tolerance
        safe = torch.where(held, spectrum.singular, torch.inf)
        return spectrum.away(-spectrum.residual / safe[:, None])

    def optimal_loss(self) -> float:
        """The least loss: 0 where it cannot be told from rounding of the targets."""
        spectrum = self.complete("optimal_loss")
        if spectrum.target is None:
            best = self.design.split(self.optimum())
            return float(self.losses({name: value[None] for name, value in best.items()}))
        lost = spectrum.target[spectrum.singular <= spectrum.tolerance].square().sum()
        left = spectrum.rest + float(lost)
        size = spectrum.rest + float(spectrum.target.square().sum())
        rounding = 64 * torch.finfo(torch.float64).eps
        return spectrum.scale * left if left > rounding**2 * size else 0.0

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
        total = torch.zeros(len(thetas), dtype=torch.float64)
        for features, target, weight in self.design.blocks(torch.float64, 2**22):
            squares = (features @ thetas.to(features.device) - target).square_()
            squares = squares if weight is None else squares * weight
            total += squares.sum((1, 2)).cpu()
        return self.spectrum.scale * total

    def along(self, parameters: dict[str, Tensor]) -> Tensor:
        """(places, rank): distances from the optimum along the directions that bend."""
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
            spectrum = dataclasses.replace(
                spectrum, rest=0.0, residual=torch.where(held, spectrum.residual, 0.0)
            )
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
