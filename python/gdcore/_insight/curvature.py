"""The class `Curvature`; `gdcore.curvature` makes it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .curvature_page import page
from .epochs import epochs_to
from .estimates import figures
from .quadratic import Quadratic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Curvature", "affine_curvature"]


@dataclass(frozen=True, eq=False)
class Curvature:
    """How a loss bends as the parameters move, and what follows for training by SGD.

    The curvatures are the eigenvalues of the loss's Hessian, (2/n) ΦᵀΦ for a mean over n elements
    and 2 ΦᵀΦ for a sum, where Φ are the features: each belongs to one direction, a combination of
    parameters, and no direction knows of another. `print` shows a page with what they mean.

    Attributes:
        largest_curvature: of the steepest direction, in loss / parameter².
        smallest_curvature: of the flattest direction that is not flat altogether. At the parameters
            of a model that is not affine it can be below zero: the loss bends down there.
        rank: directions that are not flat.
        parameters: how many there are.
        exact: whether all curvatures were computed, as for up to 4 096 features. If not, they are
            those that three hundred steps of Lanczos from a random start found; ``rank`` is how
            many these are, and may be larger. A RuntimeWarning says where the smallest has not
            settled: it may be smaller then, the condition number, rate and momentum that rest on it
            larger. The optimum is found by conjugate gradients; to ask for what is not known is a
            ValueError.
        local: whether they hold at the parameters only, because the model is not affine in them,
            rather than everywhere.
        reason: why they are local, or empty.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> model = gdcore.nn.LinearRegression(bias=False)
        >>> found = gdcore.curvature(model, torch.nn.MSELoss(), (x, x))
        >>> round(found.largest_curvature, 4), round(found.largest_stable_lr(), 4)
        (9.3333, 0.2143)

    Reference:
        Polyak, "Some methods of speeding up the convergence of iteration methods", 1964; Goh, "Why
        momentum really works", Distill, 2017.
    """

    largest_curvature: float
    smallest_curvature: float
    rank: int
    parameters: int
    exact: bool
    local: bool
    reason: str
    _quadratic: Quadratic | None

    @property
    def condition_number(self) -> float:
        """Largest over smallest curvature; the epochs that training needs grow with it."""
        if self.rank == 0:
            return 1.0
        if self.smallest_curvature <= 0:
            return math.inf
        return self.largest_curvature / self.smallest_curvature

    def largest_stable_lr(
        self, momentum: float = 0.0, nesterov: bool = False, *, weight_decay: float = 0.0
    ) -> float:
        """The learning rate of SGD above which the loss grows without bound.

        2 (1 + β) / λ with momentum β, 2 (1 + β) / ((1 + 2β) λ) with Nesterov's, where λ is the
        largest curvature and the weight decay. Infinite where the loss bends up in no direction:
        away from a least-squares problem this tells nothing of the rates that train.

        Raises:
            ValueError: a momentum below 0, or not below 1.
        """
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: expected a number from 0 to below 1, got {momentum}")
        steepest = self.largest_curvature + weight_decay
        if steepest <= 0:
            return math.inf
        share = 1 + 2 * momentum if nesterov else 1.0
        return 2 * (1 + momentum) / (share * steepest)

    @property
    def best_lr(self) -> float:
        """The fastest constant rate without momentum: 2 / (largest + smallest curvature)."""
        self._affine("best_lr")
        total = self.largest_curvature + self.smallest_curvature
        return 2 / total if total > 0 else math.inf

    @property
    def rate(self) -> float:
        """By `best_lr`, the factor by which the distance to the optimum shrinks in an epoch.

        (κ - 1) / (κ + 1) with the condition number κ; the loss's distance shrinks by its square.
        """
        self._affine("rate")
        return _rate(self.condition_number)

    @property
    def best_momentum(self) -> float:
        """The momentum (heavy ball) with which, at `best_momentum_lr`, training is fastest.

        ((√κ - 1) / (√κ + 1))² with the condition number κ.
        """
        self._affine("best_momentum")
        return self.best_momentum_rate**2

    @property
    def best_momentum_lr(self) -> float:
        """The rate for `best_momentum`: 4 / (√largest + √smallest curvature)²."""
        self._affine("best_momentum_lr")
        roots = math.sqrt(self.largest_curvature) + math.sqrt(self.smallest_curvature)
        return 4 / roots**2 if roots > 0 else math.inf

    @property
    def best_momentum_rate(self) -> float:
        """With them, the factor by which the distance to the optimum shrinks in an epoch in the
        long run: (√κ - 1) / (√κ + 1).
        """
        self._affine("best_momentum_rate")
        return _rate(math.sqrt(self.condition_number))

    @cached_property
    def curvatures(self) -> Tensor:
        """Those that were found, the largest first, one for each direction.

        Without those that rounding of the largest hides: of singular values, all below 1e-12 of it.
        """
        spectrum = self._affine("curvatures").spectrum
        held = spectrum.curvatures[: spectrum.rank]
        return held.repeat_interleave(spectrum.residual.shape[1])

    @cached_property
    def optimum(self) -> dict[str, Tensor]:
        """The parameters of least loss by name, in float64.

        Where several are equally good, the ones nearest to the parameters at the call of
        `curvature`: there descent ends. (Beside directions whose curvature is 16 digits or more
        below the largest, also with features scaled alike, rounding may hide which are nearest: the
        printed page says so.) With more than 4 096 features, by conjugate gradients until the
        gradient is 1e-10 of √(2 · largest curvature · loss), or the residual 1e-12 of the start's.

        Raises:
            ValueError: a thousand iterations did not suffice.
        """
        quadratic = self._affine("optimum")
        return quadratic.design.split(quadratic.optimum())

    @cached_property
    def optimal_loss(self) -> float:
        """The least loss that any parameters have; 0 where only rounding is left of it.

        With more than 4 096 features that of `optimum`, which may be a ValueError.
        """
        return self._affine("optimal_loss").optimal_loss()

    @cached_property
    def slowest_direction(self) -> dict[str, Tensor]:
        """The combination of parameters that training finds last, of length 1, by name.

        The direction of the smallest curvature; of several outputs that share it, the first's.
        """
        quadratic = self._affine("slowest_direction")
        if not quadratic.spectrum.settled[1]:
            quadratic.complete("slowest_direction")
        q, k = quadratic.design.shape
        theta = torch.zeros(q, k, dtype=torch.float64, device="cpu")
        if quadratic.rank:
            _, direction = quadratic.flattest
            direction = direction * direction[direction.abs().argmax()].sign()
            if len(direction) == q:
                theta[:, 0] = direction
            else:
                theta = direction.reshape(q, k)
        return quadratic.design.split(theta)

    @cached_property
    def standardised(self) -> Curvature:
        """The curvature with features of mean 0 and standard deviation 1.

        Without an intercept among the parameters, features are only divided by their root mean
        square. The parameters are those of the same predictions.
        """
        return affine_curvature(self._affine("standardised").standardised())

    @cached_property
    def start(self) -> dict[str, Tensor]:
        """The parameters by name as they were at the call of `curvature`, in float64."""
        quadratic = self._affine("start")
        return quadratic.design.split(quadratic.spectrum.start)

    def loss(self, parameters: dict[str, Tensor]) -> Tensor:
        """The loss at any number of places.

        Args:
            parameters: by name, each of shape (places, \\*the parameter's), as a
                `History`'s are.

        Returns:
            (places,) in float64.
        """
        return self._affine("loss").losses(parameters)

    def along_directions(self, parameters: dict[str, Tensor]) -> Tensor:
        """Signed distances from the optimum along each direction that bends, the steepest first.

        Args:
            parameters: as in `loss`.

        Returns:
            (places, directions) in float64, in the order of `curvatures`.
        """
        return self._affine("along_directions").along(parameters)

    def predict(self, optimizer: torch.optim.Optimizer, epochs: int) -> Tensor:
        """The losses of a full-batch training from the parameters as they are now, without it.

        Each direction's path is a power of a 2 × 2 matrix; see `gdcore.fit` for the loop itself.
        In float64 the two agree to 1e-9 of the initial loss where training converges, and relative
        to the loss itself where it grows.

        Args:
            optimizer: ``torch.optim.SGD`` or `gdcore.optim.SGD` with all its options but
                ``maximize``; momentum buffers that it has already count.
            epochs: how many.

        Returns:
            The loss of each epoch, before its update, (epochs,) in float64; infinite where it
            diverges past all numbers.

        Raises:
            TypeError: another optimizer, whose path has no closed form.
            ValueError: the model is not affine in its parameters, the optimizer does not treat them
                all alike, or there are more than 4 096 features and more than 301 epochs, weight
                decay or momentum buffers.
        """
        quadratic = self._affine("predict")
        if not isinstance(epochs, int) or isinstance(epochs, bool):
            raise TypeError(f"epochs: expected an int, got {type(epochs).__name__}")
        if epochs < 0:
            raise ValueError(f"epochs: expected at least 0, got {epochs}")
        return quadratic.descent(optimizer, epochs).losses(epochs)[:, 0]

    def epochs_to(self, tolerance: float, optimizer: torch.optim.Optimizer) -> float:
        """Epochs until the loss has come close to its optimum, from the parameters as they are now.

        Args:
            tolerance: how close, as a fraction of the loss's distance from its optimum now.
            optimizer: as in `predict`.

        Returns:
            The number of updates, an int, after which the loss is that close for the first time.
            (After 4 096 epochs an oscillation of less than a four-thousandth of the epochs so far
            may be passed over.) ``math.inf`` where it never is, or not within 2⁴⁵ epochs.

        Raises:
            TypeError, ValueError: as `predict`; a tolerance that is not above zero.
        """
        if not tolerance > 0:
            raise ValueError(f"tolerance: expected a number above 0, got {tolerance}")
        return epochs_to(
            self._affine("epochs_to").descent(optimizer, above_optimum=True), tolerance
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the curvatures and how fast each direction converges; see `gdcore.plotting`."""
        from .. import plotting

        return plotting.curvature(self, ax=ax)

    def __str__(self) -> str:
        return page(self)

    def __repr__(self) -> str:
        kind = "local" if self.local else "exact" if self.exact else "estimated"
        return (
            f"Curvature({self.smallest_curvature:.4g} to {self.largest_curvature:.4g}, "
            f"rank {self.rank} of {self.parameters}, {kind})"
        )

    def _affine(self, what: str) -> Quadratic:
        if self._quadratic is None:
            raise ValueError(
                f"{what}: expected a squared error of a model that is affine in its parameters; "
                f"{self.reason}"
            )
        return self._quadratic


def _rate(ratio: float) -> float:
    return 1.0 if math.isinf(ratio) else (ratio - 1) / (ratio + 1)


def affine_curvature(quadratic: Quadratic) -> Curvature:
    """The curvature of a least-squares problem."""
    largest, smallest, rank = figures(quadratic)
    parameters, exact = quadratic.design.size, quadratic.spectrum.exact
    return Curvature(largest, smallest, rank, parameters, exact, False, "", quadratic)
