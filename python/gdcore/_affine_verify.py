"""The check of an affine form against the model itself, at other values of the parameters.

The rules of the trace say what the formula is; this asks the model and autograd whether it is so.
The parameters are overwritten for the time of the check, in place so that every alias of them
follows, through ``.data`` so that their version counters stay, and put back whatever happens.
Nothing else may use them meanwhile.

A prediction is a sum of q products after some operations; with unit roundoff u, its rounding
error stays below u (λ √m + operations) Σ |features| |θ|, where m bounds the length of a sum and
λ = 8 makes an excess as unlikely as 1e-13 (Higham and Mary, "A New Approach to Probabilistic
Rounding Error Analysis", 2019). The formula's own error is no larger.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ._affine_normal import NormalForm

__all__ = ["disagreement", "unreached"]

_LAMBDA = 8.0
_SMALL = 2**16
"""Features up to which every check is made on all rows."""
_FEW = 5
_MANY = 64

Call = Callable[[tuple[Tensor, ...]], Tensor]


class _Check:
    def __init__(
        self,
        call: Call,
        form: NormalForm,
        parameters: Sequence[Tensor],
        shape: torch.Size,
        operations: int,
    ) -> None:
        self.call = call
        self.form = form
        self.parameters = parameters
        self.shape = shape
        n, q = form.features.shape
        k = form.index.shape[0]
        unit = torch.finfo(form.features.dtype).eps / 2
        self.gamma = 2 * unit * (_LAMBDA * (n + q + k) ** 0.5 + operations + 4)
        self.size = sum(parameter.numel() for parameter in parameters)
        self.random = torch.Generator(form.features.device).manual_seed(n * k + self.size)
        self.theta = form.features.new_zeros(self.size + 1)

    def normal(self, *shape: int) -> Tensor:
        features = self.form.features
        return torch.randn(
            shape, generator=self.random, dtype=features.dtype, device=features.device
        )

    def draw(self) -> None:
        """Random parameters."""
        self.theta[:-1] = self.normal(self.size)
        parts = self.theta[:-1].split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.data.copy_(part.view(parameter.shape))

    def _rows(self, rows: Tensor | None) -> tuple[Tensor, Tensor | None]:
        features, offset = self.form.features, self.form.offset
        if rows is None:
            return features, offset
        return features[rows], None if offset is None else offset[rows]

    def value_agrees(self, out: Tensor, rows: Tensor | None = None) -> bool:
        features, offset = self._rows(rows)
        weights = self.theta[self.form.index].T
        expected = features @ weights
        size = features.abs() @ weights.abs()
        if offset is not None:
            expected = expected + offset
            size = size + offset.abs()
        error = (out.detach().reshape(expected.shape) - expected).abs()
        # so that what is not a number does not agree
        return bool((error <= self.gamma * size).all())

    def gradient_agrees(self, out: Tensor, rows: Tensor | None = None) -> bool:
        features, _ = self._rows(rows)
        index = self.form.index
        v = self.normal(features.shape[0], index.shape[0])
        found = torch.autograd.grad(
            out, self.parameters, v.view(out.shape), allow_unused=True, materialize_grads=True
        )
        at = index.reshape(-1)
        expected = self.theta.new_zeros(self.size + 1)
        size = self.theta.new_zeros(self.size + 1)
        at = torch.where(at < 0, self.size, at)
        expected.index_add_(0, at, (v.T @ features).reshape(-1))
        size.index_add_(0, at, (v.abs().T @ features.abs()).reshape(-1))
        flat = torch.cat([g.reshape(-1) for g in found])
        error = (flat - expected[:-1]).abs()
        return bool((error <= self.gamma * size[:-1]).all())


def unreached(out: Tensor, parameters: Sequence[Tensor]) -> list[bool]:
    """Which parameters autograd does not reach from a prediction: PyTorch leaves them untouched."""
    grads = torch.autograd.grad(
        out, list(parameters), torch.zeros_like(out), allow_unused=True, retain_graph=True
    )
    return [grad is None for grad in grads]


def disagreement(
    call: Call,
    xs: tuple[Tensor, ...],
    form: NormalForm,
    parameters: Sequence[Tensor],
    out: Tensor,
    operations: int,
) -> tuple[str | None, bool]:
    """Whether the form is the model's: what differs, or None; and whether rows stand alone."""
    check = _Check(call, form, parameters, out.shape, operations)
    saved = [parameter.detach().clone() for parameter in parameters]
    n = form.features.shape[0]
    rowwise = all(x.dim() > 0 and x.shape[0] == n for x in xs)
    small = form.features.numel() <= _SMALL
    check.theta[:-1] = torch.cat([value.reshape(-1) for value in saved])
    if not check.value_agrees(out):
        return "the prediction differs from the affine formula", False
    try:
        for point in range(2):
            check.draw()
            if point and rowwise:
                rowwise = _rows_agree(check, xs, 1) and _rows_agree(
                    check, xs, min(n, _FEW if small else _MANY)
                )
                if rowwise and not small:
                    continue
            again = call(xs)
            if again.shape != out.shape or not check.value_agrees(again):
                return "the prediction at other parameter values differs from the formula", False
            if not check.gradient_agrees(again):
                return "the gradient differs from the affine formula's (detach, or a hook?)", False
    finally:
        for parameter, value in zip(parameters, saved, strict=True):
            parameter.data.copy_(value)
    check.theta[:-1] = torch.cat([value.reshape(-1) for value in saved])
    if rowwise and not small:
        same = _rows_agree(check, xs, _MANY)
    else:
        again = call(xs)
        same = again.shape == out.shape and check.value_agrees(again)
    return None if same else "a second call gives another prediction", rowwise


def _rows_agree(check: _Check, xs: tuple[Tensor, ...], count: int) -> bool:
    n = check.form.features.shape[0]
    rows = torch.randperm(n, generator=check.random, device=check.theta.device)[:count]
    shape = (check.shape[0] // n * len(rows), *check.shape[1:]) if check.shape else ()
    try:
        out = check.call(tuple(x[rows] for x in xs))
    except Exception:  # the model wants all rows
        return False
    if out.shape != shape or out.requires_grad is False:
        return False
    return check.value_agrees(out, rows) and check.gradient_agrees(out, rows)
