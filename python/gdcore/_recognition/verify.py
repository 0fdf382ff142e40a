"""The check of an affine form against the model itself, at other values of the parameters.

The rules of the trace say what the formula is; this asks the model and autograd whether it is so.
The parameters are overwritten for the time of the check, in place so that every alias of them
follows, through ``.data`` so that their version counters stay, and put back whatever happens.
Nothing else may use them meanwhile.

A prediction is a sum of q products after some operations; with unit roundoff u, its rounding
error stays below u (λ √m + operations) Σ |features| |θ|, where m bounds the length of a sum and
λ = 8 makes an excess as unlikely as 1e-13 (Higham and Mary, "A New Approach to Probabilistic
Rounding Error Analysis", 2019). The formula's own error is no larger; together, twice that. By
Cauchy and Schwarz the sum is at most the norm of the row times that of θ, and a gradient's the norm
of the column times that of the weighting: so two vectors of norms give every bound. Where features
are themselves sums whose terms cancel (a mean over the rows), the norms are those of the terms'
magnitudes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .normal import NormalForm

__all__ = ["disagreement"]

_LAMBDA = 8.0
_SMALL = 2**16
"""Features up to which every check is made on all rows."""
_FEW = 5
_MANY = 64
_ALONE = 8
_HUGE = 1e4
_COARSE = 1e-3
"""A row that depends on others differs by far more than by rounding."""

Call = Callable[[tuple[Tensor, ...]], Tensor]


class _Check:
    """The model and its form at one value of the parameters after another."""

    def __init__(
        self,
        call: Call,
        form: NormalForm,
        magnitude: NormalForm,
        parameters: Sequence[Tensor],
        out: Tensor,
        steps: int,
        inputs: int,
    ) -> None:
        self.call = call
        self.form = form
        self.magnitude = magnitude
        self.parameters = parameters
        self.shape, self.inputs = out.shape, inputs
        features, index = form.features, form.positions
        n, q = features.shape
        k = index.shape[0]
        gamma = torch.finfo(features.dtype).eps * (_LAMBDA * (n + q + k) ** 0.5 + steps + 4)
        self.gamma = gamma
        self.row_norms = torch.linalg.vector_norm(magnitude.features, dim=1, keepdim=True)
        self.column_norms = torch.linalg.vector_norm(magnitude.features, dim=0)
        total = sum(p.numel() for p in parameters) + 1
        self.at = index.reshape(-1).remainder(total)
        self.bound_at = magnitude.positions.reshape(-1).remainder(total)
        values = [parameter.detach().reshape(-1) for parameter in parameters]
        self.theta = torch.cat([*values, features.new_zeros(1)])
        """The parameters end to end, and the 0 that position -1 finds."""
        self.flat = self.theta[:-1]
        self.actual = self.flat.clone()
        parts = self.flat.split([value.numel() for value in values])
        self.pairs = [
            (p.data, part.view(p.shape)) for p, part in zip(parameters, parts, strict=True)
        ]
        self.random = torch.Generator(features.device).manual_seed(n * k + q)

    def draw(self) -> None:
        """Other parameters, standard normal."""
        self.flat.normal_(generator=self.random)
        for place, value in self.pairs:
            place.copy_(value)

    def restore(self) -> None:
        self.flat.copy_(self.actual)
        for place, value in self.pairs:
            place.copy_(value)

    def value_agrees(self, out: Tensor, rows: Tensor | None = None) -> bool:
        features, norms = self.form.features, self.row_norms
        offset, most = self.form.offset, self.magnitude.offset
        if rows is not None:
            features, norms = features[rows], norms[rows]
        weights = self.theta[self.form.positions]
        error = out.detach().reshape(-1, weights.shape[0]) - features @ weights.T
        allowed = norms * torch.linalg.vector_norm(self.theta[self.magnitude.positions], dim=1)
        if offset is not None and most is not None:
            error -= offset if rows is None else offset[rows]
            allowed += (most if rows is None else most[rows]).abs()
        return self._small(error, allowed)

    def _small(self, error: Tensor, allowed: Tensor) -> bool:
        # What is not a number has a maximum that is none either, and does not agree.
        return bool(error.abs_().sub_(allowed.mul_(self.gamma)).max().item() <= 0)

    def gradient_agrees(self, out: Tensor, rows: Tensor | None = None) -> bool:
        """Of a random weighting of the predictions."""
        features, norms = self.form.features, self.column_norms
        if rows is not None:
            features = features[rows]
            norms = torch.linalg.vector_norm(self.magnitude.features[rows], dim=0)
        v = features.new_empty(features.shape[0], self.form.positions.shape[0])
        v.normal_(generator=self.random)
        found = torch.autograd.grad(out, self.parameters, v.view(out.shape), materialize_grads=True)
        if any(gradient.layout is not torch.strided for gradient in found):
            return False  # optimizers treat a sparse gradient in their own way
        sizes = torch.outer(torch.linalg.vector_norm(v, dim=0), norms).view(-1)
        expected, allowed = self.theta.new_zeros(2, len(self.theta))
        expected.index_add_(0, self.at, (v.T @ features).view(-1))
        allowed.index_add_(0, self.bound_at, sizes)
        error = torch.cat([gradient.reshape(-1) for gradient in found]) - expected[:-1]
        return self._small(error, allowed[:-1])

    def rows_agree(self, xs: tuple[Tensor, ...], count: int, gradient: bool) -> bool:
        """Whether the model, given a few rows in another order, predicts the form's rows."""
        n, device = self.inputs, self.theta.device
        stack = len(self.form.features) // n
        if n > _SMALL:
            rows = torch.randint(n, (count,), generator=self.random, device=device)
        else:
            rows = torch.randperm(n, generator=self.random, device=device)[:count]
        try:
            out = self.call(tuple(x[rows] for x in xs))
        except Exception:  # a model that wants all its rows
            return False
        if out.shape != (self.shape[0] // n * len(rows), *self.shape[1:]) or not out.requires_grad:
            return False
        if stack > 1:
            rows = (rows[:, None] * stack + torch.arange(stack, device=device)).reshape(-1)
        return self.value_agrees(out, rows) and (not gradient or self.gradient_agrees(out, rows))

    def rows_stand_alone(self, xs: tuple[Tensor, ...]) -> bool:
        """Whether a few rows, one of them huge, are predicted as each of them by itself is.

        A threshold of something that is made of all rows is passed by the huge one.
        """
        rows = torch.randint(
            self.inputs, (_ALONE,), generator=self.random, device=self.theta.device
        )
        for sign in (1, -1):
            given = tuple(x[rows] for x in xs)
            for one in given:
                if one.is_floating_point():
                    one[_ALONE // 2] = sign * _HUGE * (one[_ALONE // 2].abs() + 1)
            try:
                together = self.call(given)
                alone = [self.call(tuple(x[i : i + 1] for x in given)) for i in range(_ALONE)]
                each = torch.cat(alone)
            except Exception:  # a model that wants all its rows
                return False
            if together.shape != each.shape:
                return False
            together, each = together.detach(), each.detach()
            if not torch.allclose(together, each, rtol=_COARSE, atol=0.0, equal_nan=True):
                return False
        return True


def disagreement(
    call: Call,
    xs: tuple[Tensor, ...],
    form: NormalForm,
    parameters: Sequence[Tensor],
    out: Tensor,
    steps: int,
    counts: Sequence[int] = (),
    magnitude: NormalForm | None = None,
    *,
    thorough: bool = False,
) -> tuple[str | None, int]:
    """What differs between the model and its form, or None; and how many rows of features belong to
    each row of x, 0 where the prediction of a row may depend on others.

    At one random point all rows are compared, at a second a few of them and a single one; all
    again where rows do not stand alone. Then once more at the parameters' own values.

    Args:
        call: the model, on the tuple of its inputs.
        xs: those inputs.
        form: what the model is said to be.
        parameters: the trained ones, in θ's order.
        out: the prediction that was watched.
        steps: how many operations it took.
        counts: of rows that the model will be given, beside the few and the single one.
        magnitude: the form with every constant's magnitude in its place; without it, the form's.
        thorough: whether rows have to stand alone for other x too.
    """
    inputs = xs[0].shape[0]
    check = _Check(call, form, magnitude or form, parameters, out, steps, inputs)
    if not bool(check.row_norms.isfinite().all()):
        return "x, or what is made of it, is not finite", 0
    if not check.value_agrees(out):
        return "the prediction differs from the affine formula", 0
    n = len(form.features)
    small = form.features.numel() <= _SMALL
    rowwise = bool(out.shape) and n % inputs == 0 and all(x.shape[0] == inputs for x in xs)
    if n > inputs:
        rowwise = rowwise and out.shape[0] == inputs
    try:
        for point in range(2):
            check.draw()
            if point:
                rowwise = (
                    rowwise
                    and check.rows_agree(xs, min(inputs, _FEW if small else _MANY), True)
                    and check.rows_agree(xs, 1, False)
                    and all(check.rows_agree(xs, count, True) for count in counts)
                    and (not thorough or check.rows_stand_alone(xs))
                )
                if rowwise:
                    break
            again = call(xs)
            if again.shape != out.shape or not check.value_agrees(again):
                return "the prediction at other parameter values differs from the formula", 0
            if not again.requires_grad or not check.gradient_agrees(again):
                return "the gradient differs from the affine formula's (detach, or a hook?)", 0
    finally:
        check.restore()
    if rowwise and not small:
        same = check.rows_agree(xs, _MANY, False)
    else:
        again = call(xs)
        same = again.shape == out.shape and check.value_agrees(again)
    return None if same else "a second call gives another prediction", rowwise * n // inputs
