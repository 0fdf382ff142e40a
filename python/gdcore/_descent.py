r"""Stochastic gradient descent on a quadratic in closed form, as ``torch.optim.SGD`` does it.

Along a direction of curvature λ the parameter's distance f from its fixed point and the momentum
buffer, in units of steps, v = lr · buffer, follow a recurrence of two numbers. With z = lr (λ +
weight_decay), momentum β and dampening τ ::

    v ← β v + (1 - τ) z f        f ← f - v              (heavy ball)
    v ← β v + z f                f ← f - z f - β v      (Nesterov, where τ = 0)

so that t epochs are the t-th power of a 2 × 2 matrix. The powers are formed by multiplication: the
roots of its characteristic equation would lose their digits where they nearly coincide, which is
where the best momentum is. torch's first step sets the buffer to the gradient itself; a buffer of
τ z f / β before it does the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._spectrum import Spectrum

__all__ = ["Descents", "Settings", "sgd_settings"]

_CHUNK = 2**17
"""Numbers worked on together: few enough for the processor's cache."""

Matrix = tuple[Tensor, Tensor, Tensor, Tensor]
"""a, b, c, d of ((a, b), (c, d)), one such matrix for each direction and run."""


class Settings(NamedTuple):
    """Of runs of SGD: numbers, or one for each run, of shape (runs,)."""

    lr: Tensor
    momentum: Tensor
    dampening: Tensor
    weight_decay: Tensor
    nesterov: bool

    @classmethod
    def of(cls, group: dict[str, Any], runs: int = 1, **varied: Tensor) -> Settings:
        """Those of an optimizer's group, with some of them varied over the runs."""

        def each(key: str) -> Tensor:
            if key in varied:
                return varied[key]
            return torch.full((runs,), float(group[key]), dtype=torch.float64)

        momentum = each("momentum")
        # torch reads the dampening only where there is momentum.
        dampening = torch.where(momentum != 0, each("dampening"), 0.0)
        return cls(each("lr"), momentum, dampening, each("weight_decay"), bool(group["nesterov"]))

    def largest_stable_lr(self, curvature: float) -> Tensor:
        """(runs,): the rate at which the direction of that curvature begins to grow.

        The roots of the recurrence leave the unit circle at -1:
        z = 2 (1 + β) / (1 - τ), with Nesterov's momentum 2 (1 + β) / (1 + 2β).
        """
        curvatures = curvature + self.weight_decay
        share = 1 + 2 * self.momentum if self.nesterov else 1 - self.dampening
        return 2 * (1 + self.momentum) / (share * curvatures)


def sgd_settings(optimizer: Any, parameters: Sequence[Tensor]) -> dict[str, Any]:
    """The one group of settings with which an SGD trains all these parameters.

    Raises:
        TypeError: the optimizer is not SGD.
        ValueError: it does not hold all of them, or not with the same settings; it ascends.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        raise TypeError(
            "optimizer: expected torch.optim.SGD or gdcore.optim.SGD, whose path has a closed "
            f"form, got {type(optimizer).__name__}"
        )
    keys = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
    found: dict[str, Any] | None = None
    for parameter in parameters:
        groups = [g for g in optimizer.param_groups if any(p is parameter for p in g["params"])]
        if not groups:
            raise ValueError(
                "optimizer: expected to hold all parameters of model that require grad, got one "
                f"of shape {tuple(parameter.shape)} that it does not hold"
            )
        settings = {key: groups[0][key] for key in keys}
        if found is not None and any(float(settings[k]) != float(found[k]) for k in keys):
            raise ValueError(
                "optimizer: expected the same settings for all parameters, "
                f"got {found} and {settings}"
            )
        found = settings
    if found is None or found["maximize"]:
        raise ValueError("optimizer: expected maximize=False, got True")
    return found


class Descents:
    """Runs of SGD from one start or several, on the same rows.

    Args:
        spectrum: the problem.
        residual: (m, k, runs), e along the directions at each run's start.
        coordinates: (m, k, runs), Θ along the directions there; needed for weight decay.
        settings: of the runs.
        buffer: (m, k, runs), momentum buffers along the directions, where there are any already.
    """

    def __init__(
        self,
        spectrum: Spectrum,
        residual: Tensor,
        coordinates: Tensor | None,
        settings: Settings,
        buffer: Tensor | None = None,
    ) -> None:
        s, curvature = spectrum.singular[:, None, None], spectrum.curvatures[:, None, None]
        m, k, runs = residual.shape
        self.settings, self.shape = settings, (m, k, runs)
        self.scale, self.rest = spectrum.scale, spectrum.rest
        lr, decay = settings.lr, settings.weight_decay
        # A decayed descent ends not at e = 0 but where both pulls balance.
        self.fixed: Tensor | None = None
        gradient = 2 * spectrum.scale * s * residual
        if bool((decay != 0).any()):
            assert coordinates is not None
            target = s * coordinates - residual
            pull = curvature + decay
            self.fixed = torch.where(pull > 0, -decay * target / pull, 0.0)
            gradient = gradient + decay * coordinates
        self.push = lr * gradient
        beta, tau = settings.momentum, settings.dampening
        if buffer is None:
            self.carried = torch.where(beta != 0, tau / beta, 0.0) * self.push
        else:
            self.carried = torch.where(beta != 0, lr * buffer, 0.0)
        self.distance = residual if self.fixed is None else residual - self.fixed
        self.velocity = s * self.carried
        # What is at rest stays there, also where everything beside it grows past all bounds.
        still = (self.distance == 0) & (self.velocity == 0) & (self.push == 0) & (self.carried == 0)
        resting = still.all(1, keepdim=True)
        z = torch.where(resting, 0.0, lr * (curvature + decay))
        one = torch.ones_like(z)
        if settings.nesterov:
            self.matrix: Matrix = (1 - z - beta * z, -(beta**2) * one, z, beta * one)
        else:
            kept = (1 - tau) * z
            self.matrix = (1 - kept, -beta * one, kept, beta * one)

    def losses(self, epochs: int, first: int = 0, stride: int = 1) -> Tensor:
        """(epochs, runs): the loss before the update of epochs first, first + stride, ….

        Baby steps and giant steps: with about √epochs powers of the matrix and as many powers of
        the last, every epoch is two multiplications for each direction and run.
        """
        m, k, runs = self.shape
        f, v, step = self.distance, self.velocity, self.matrix
        if first:
            f, v = _apply(_power(step, first), f, v)
        if stride > 1:
            step = _power(step, stride)
        baby = 1 << (epochs.bit_length() // 2)
        giant = -(-epochs // baby)
        leap = _power(step, baby)
        if self.fixed is None and not bool(v.any()) and not bool(self.settings.momentum.any()):
            squares = _decays(
                f.square().sum(1), step[0][:, 0] ** 2, leap[0][:, 0] ** 2, baby, giant
            )
            return self._scaled(squares, epochs)
        squares = torch.zeros(giant, runs, baby, dtype=torch.float64)
        wide = max(_CHUNK // (baby * k * max(m, 1)), 1)
        high = max(_CHUNK // (baby * k * wide), 1)
        for column in range(0, runs, wide):
            for row in range(0, m, high):
                at = (slice(row, row + high), slice(None), slice(column, column + wide))
                self._add(
                    squares[:, at[2]],
                    _cut(step, at),
                    _cut(leap, at),
                    f[at],
                    v[at],
                    None if self.fixed is None else self.fixed[at],
                )
        return self._scaled(squares, epochs)

    def _scaled(self, squares: Tensor, epochs: int) -> Tensor:
        """(epochs, runs) from Σ e², (giant, runs, baby)."""
        losses = self.scale * (squares.nan_to_num(torch.inf, torch.inf) + self.rest)
        return losses.transpose(1, 2).reshape(-1, losses.shape[1])[:epochs]

    @staticmethod
    def _add(
        squares: Tensor, step: Matrix, leap: Matrix, f: Tensor, v: Tensor, fixed: Tensor | None
    ) -> None:
        """Add Σ e² of some directions and runs to squares (giant, runs, baby)."""
        giant, _, baby = squares.shape
        small_f, small_v = f.new_empty(*f.shape, baby), f.new_empty(*f.shape, baby)
        for i in range(baby):
            small_f[..., i], small_v[..., i] = f, v
            f, v = _apply(step, f, v)
        # The first row of the power of the leap is all that f needs.
        a, b = torch.ones_like(leap[0])[..., None], torch.zeros_like(leap[0])[..., None]
        leap = (leap[0][..., None], leap[1][..., None], leap[2][..., None], leap[3][..., None])
        e = torch.empty_like(small_f)
        for i in range(giant):
            torch.mul(small_f, a, out=e)
            e.addcmul_(small_v, b)
            if fixed is not None:
                e += fixed[..., None]
            squares[i] += e.square_().sum((0, 1))
            a, b = a * leap[0] + b * leap[2], a * leap[1] + b * leap[3]

    def displacements(self, epochs: int) -> Tensor:
        """(m, k, runs): how far Θ has come along the directions after so many updates.

        The recurrence with the first gradient as a constant push, from zero: no difference of
        nearly equal numbers, so that a direction that hardly moves is followed as closely.
        """
        beta, tau = self.settings.momentum, self.settings.dampening
        if self.settings.nesterov:
            push = (-(1 + beta) * self.push, self.push)
        else:
            push = (-(1 - tau) * self.push, (1 - tau) * self.push)
        matrix, exponent = self.matrix, epochs
        d, v = torch.zeros_like(self.push), self.carried
        while exponent:
            if exponent & 1:
                d, v = _apply(matrix, d, v)
                d, v = d + push[0], v + push[1]
            exponent >>= 1
            if exponent:
                again = _apply(matrix, *push)
                push = (push[0] + again[0], push[1] + again[1])
                matrix = _product(matrix, matrix)
        return d


def _decays(start: Tensor, step: Tensor, leap: Tensor, baby: int, giant: int) -> Tensor:
    """Σⱼ startⱼ stepⱼᵗ, (giant, runs, baby), of (m, runs): geometric series, as one matrix product
    for each run. All terms are positive, so that nothing cancels.
    """
    small, large = (
        torch.ones(baby, *start.T.shape).to(start),
        start.new_empty(giant, *start.T.shape),
    )
    step, leap, large[0] = step.T.contiguous(), leap.T.contiguous(), start.T
    for i in range(1, baby):
        torch.mul(small[i - 1], step, out=small[i])
    for i in range(1, giant):
        torch.mul(large[i - 1], leap, out=large[i])
    return torch.bmm(large.transpose(0, 1), small.permute(1, 2, 0)).transpose(0, 1)


def _product(left: Matrix, right: Matrix) -> Matrix:
    a, b, c, d = left
    e, f, g, h = right
    return a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h


def _apply(matrix: Matrix, f: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    a, b, c, d = matrix
    return a * f + b * v, c * f + d * v


def _power(matrix: Matrix, exponent: int) -> Matrix:
    zero, one = torch.zeros_like(matrix[0]), torch.ones_like(matrix[0])
    result: Matrix = (one, zero, zero, one)
    while exponent:
        if exponent & 1:
            result = _product(result, matrix)
        exponent >>= 1
        matrix = _product(matrix, matrix) if exponent else matrix
    return result


def _cut(matrix: Matrix, at: tuple[slice, ...]) -> Matrix:
    a, b, c, d = matrix
    return a[at], b[at], c[at], d[at]
