r"""Stochastic gradient descent on a quadratic in closed form, as ``torch.optim.SGD`` does it.

Along a direction of curvature λ the parameter's distance f from its fixed point and the momentum
buffer, in units of steps, v = lr · buffer, follow a recurrence. With z = lr (λ + weight_decay),
momentum β and dampening τ ::

    v ← β v + (1 - τ) z f        f ← f - v              (heavy ball)
    v ← β v + z f                f ← f - z f - β v      (Nesterov, where τ = 0)

so that t epochs are the t-th power of a 2 × 2 matrix M, half of whose trace is h. Powers of M are
w + u N with N = M - h, and N² is a number, Δ: such pairs multiply as complex numbers do (Δ < 0), as
dual numbers (Δ = 0: both roots coincide, where the best momentum is), or as split-complex ones. The
roots themselves, which lose their digits where they nearly coincide, are never formed; Δ is, as a
product, so that nothing cancels. torch's first step sets the buffer to the gradient itself; a
buffer of τ z f / β before it does the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .spectrum import Spectrum

__all__ = ["Descents", "Settings", "sgd_settings"]

_CHUNK = 2**18
"""Numbers worked on together: few enough for the processor's cache."""

Pair = tuple[Tensor, Tensor]
"""w and u of w + u N, for each direction and run."""


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
            return torch.full((runs,), float(group[key]), dtype=torch.float64, device="cpu")

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
        self.shape = residual.shape
        self.scale, self.rest = spectrum.scale, spectrum.rest
        lr, beta, tau, decay, nesterov = settings
        # A decayed descent ends not at e = 0 but where both pulls balance.
        self.fixed: Tensor | None = None
        gradient = 2 * spectrum.scale * s * residual
        if coordinates is not None and bool((decay != 0).any()):
            target, pull = s * coordinates - residual, curvature + decay
            self.fixed = torch.where(pull > 0, -decay * target / pull, 0.0)
            gradient = gradient + decay * coordinates
        push = lr * gradient
        carried = tau * push if buffer is None else beta * (lr * buffer)  # β v
        z = lr * (curvature + decay)
        if nesterov:
            half = (1 + beta) * (1 - z) / 2
            self.square = (1 - z) * ((1 - beta) ** 2 - (1 + beta) ** 2 * z) / 4
            self.first = -push - beta * (carried + push)
            self.push = -push
        else:
            z, root = (1 - tau) * z, beta.sqrt()
            half = (1 + beta - z) / 2
            self.square = ((1 - root) ** 2 - z) * ((1 + root) ** 2 - z) / 4
            self.first = -carried - (1 - tau) * push
            self.push = -(1 - tau) * push
        # The first step of e is S times that of Θ.
        self.residual = residual
        self.distance = residual if self.fixed is None else residual - self.fixed
        self.turned = (1 - half) * self.distance + s * self.first
        # What is at rest stays there, also where everything beside it grows past all bounds.
        still = (self.distance == 0) & (self.turned == 0) & (self.first == 0) & (self.push == 0)
        resting = still.all(1, keepdim=True)
        self.half = torch.where(resting, 0.5, half)
        self.square = torch.where(resting, 0.0, self.square)
        self.plain = self.fixed is None and buffer is None and not bool(beta.any())

    def losses(self, epochs: int, first: int = 0, stride: int = 1) -> Tensor:
        """(epochs, runs): the loss before the update of epochs first, first + stride, ….

        Baby steps and giant steps: with about √epochs powers of M and as many powers of the last,
        every epoch is two multiplications for each direction and run.
        """
        m, k, runs = self.shape
        if epochs == 0:
            return torch.empty(0, runs, dtype=torch.float64, device="cpu")
        one = self._one()
        start = self._power(first) if first else one
        step = self._power(stride)
        baby = 1 << (epochs.bit_length() // 2)
        giant = -(-epochs // baby)
        leap = step
        for _ in range(baby.bit_length() - 1):
            leap = _product(leap, leap, self.square)
        if self.plain:  # M is a number, 2 h
            h = 2 * self.half
            weights = (self.distance.square().sum(1), h[:, 0] ** (2 * first))
            rates = (h[:, 0].square() ** stride, h[:, 0].square() ** (stride * baby))
            return self._scaled(_decays(weights[0] * weights[1], *rates, baby, giant), epochs)
        squares = torch.zeros(giant, baby, runs, dtype=torch.float64, device="cpu")
        wide = max(_CHUNK // (baby * k * max(m, 1)), 1)
        high = max(_CHUNK // (baby * k * wide), 1)
        for column in range(0, runs, wide):
            for row in range(0, m, high):
                at = (slice(row, row + high), slice(None), slice(column, column + wide))
                self._add(squares[:, :, at[2]], at, start, step, leap)
        losses = self._scaled(squares, epochs)
        if first == 0:  # before any update, also where the powers overflow
            losses[0] = self.scale * (self.residual.square().sum((0, 1)) + self.rest)
        return losses

    def _one(self) -> Pair:
        return torch.ones_like(self.half), torch.zeros_like(self.half)

    def _power(self, exponent: int) -> Pair:
        result, power = self._one(), (self.half, torch.ones_like(self.half))
        while exponent:
            if exponent & 1:
                result = _product(result, power, self.square)
            exponent >>= 1
            power = _product(power, power, self.square) if exponent else power
        return result

    def _scaled(self, squares: Tensor, epochs: int) -> Tensor:
        """(epochs, runs) from Σ e², (giant, baby, runs)."""
        losses = self.scale * (squares.nan_to_num(torch.inf, torch.inf) + self.rest)
        return losses.reshape(-1, losses.shape[2])[:epochs]

    def _add(
        self, squares: Tensor, at: tuple[slice, ...], start: Pair, step: Pair, leap: Pair
    ) -> None:
        """Add Σ e² of some directions and runs to squares (giant, baby, runs)."""
        giant, baby, _ = squares.shape
        square, f, g = self.square[at], self.distance[at], self.turned[at]
        step, leap = (step[0][at], step[1][at]), (leap[0][at], leap[1][at])
        w, u = start[0][at], start[1][at]
        # e after M^(a + b) = w_a (w_b f + u_b g) + u_a (Δ u_b f + w_b g), where g = N f.
        with_w, with_u = f.new_empty(baby, *f.shape), f.new_empty(baby, *f.shape)
        for i in range(baby):
            with_w[i] = w * f + u * g
            with_u[i] = square * u * f + w * g
            w, u = _product((w, u), step, square)
        w, u = torch.ones_like(square), torch.zeros_like(square)
        fixed = None if self.fixed is None else self.fixed[at]
        e = torch.empty_like(with_w)
        for i in range(giant):
            torch.mul(with_w, w, out=e)
            e.addcmul_(with_u, u)
            if fixed is not None:
                e += fixed
            squares[i] += e.square_().sum((1, 2))
            w, u = _product((w, u), leap, square)

    def displacements(self, epochs: int) -> Tensor:
        """(m, k, runs): how far Θ has come along the directions after so many updates.

        d ← 2 h d - (h² - Δ) d₋₁ + push, from zero and the first step: no difference of nearly equal
        numbers, so that a direction that hardly moves is followed as closely as the others.
        """
        step = (self.half, torch.ones_like(self.half))
        power, sums = self._one(), (torch.zeros_like(self.half), torch.zeros_like(self.half))
        for bit in bin(epochs)[2:]:  # the powers below 2 n, from those below n
            more = _product(sums, power, self.square)
            sums = (sums[0] + more[0], sums[1] + more[1])
            power = _product(power, power, self.square)
            if bit == "1":
                sums = (sums[0] + power[0], sums[1] + power[1])
                power = _product(power, step, self.square)
        return power[1] * self.first + sums[1] * self.push


def _product(left: Pair, right: Pair, square: Tensor) -> Pair:
    """Of two w + u N with N² = Δ."""
    (w, u), (other_w, other_u) = left, right
    return w * other_w + square * (u * other_u), w * other_u + u * other_w


def _decays(start: Tensor, step: Tensor, leap: Tensor, baby: int, giant: int) -> Tensor:
    """Σⱼ startⱼ stepⱼᵗ, (giant, baby, runs), of (m, runs): geometric series, as one matrix product
    for each run. All terms are positive, so that nothing cancels.
    """
    small, large = (
        torch.ones(baby, *start.T.shape, device="cpu").to(start),
        start.new_empty(giant, *start.T.shape),
    )
    step, leap, large[0] = step.T.contiguous(), leap.T.contiguous(), start.T
    for i in range(1, baby):
        torch.mul(small[i - 1], step, out=small[i])
    for i in range(1, giant):
        torch.mul(large[i - 1], leap, out=large[i])
    return torch.bmm(large.transpose(0, 1), small.permute(1, 2, 0)).permute(1, 2, 0)
