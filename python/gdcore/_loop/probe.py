"""A model's prediction of one row, beside that of the formula it was found to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .columns import Features

if TYPE_CHECKING:
    from ..affine import AffineForm

__all__ = ["Probe"]

_LAMBDA = 8.0
"""As in the check of an affine form: an excess over its bound is as unlikely as 1e-13."""


class Probe:
    """A row by which a model is compared with its formula before each step.

    It has no zeros, so that every feature counts. A parameter that is zero hides what it is
    multiplied by: then the gradient of the prediction is compared, too.
    """

    def __init__(self, features: Features, form: AffineForm, x: Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        row = torch.rand((1, *x.shape[1:]), generator=generator, dtype=x.dtype, device="cpu") + 0.5
        self._row, self._parameters = row, form.parameters
        self._features = features(row)[0].numpy()
        self._sizes = np.abs(self._features)
        self._index, q = form.index.numpy(), form.index.shape[1]
        self._shape, self._dtype = torch.Size((1, *form.shape[1:])), x.dtype
        self._error = torch.finfo(x.dtype).eps * (_LAMBDA * q**0.5 + 32)
        self._zero = np.zeros(1, self._features.dtype)
        self._signs = (
            torch.rand(self._shape, generator=generator, dtype=x.dtype, device="cpu") + 0.5
        )
        count = sum(p.numel() for p in form.parameters)
        products = np.outer(self._signs.numpy().ravel(), self._features)
        self._gradient, self._magnitude = np.zeros((2, count + 1), self._features.dtype)
        np.add.at(self._gradient, self._index, products)
        np.add.at(self._magnitude, self._index, np.abs(products))

    def agrees(self, model: Any) -> bool:
        """Whether the model's prediction is the formula's, to rounding."""
        try:
            with torch.enable_grad():
                out = model(self._row)
        except Exception:  # a model that wants other rows
            return False
        if type(out) is not Tensor or out.dtype != self._dtype or out.shape != self._shape:
            return False
        values = [p.detach().numpy().ravel() for p in self._parameters]
        theta = np.concatenate((*values, self._zero))
        weights = theta[self._index]
        with np.errstate(all="ignore"):  # what is not finite does not agree
            error = out.detach().numpy().ravel() - weights @ self._features
            allowed = self._error * (np.abs(weights) @ self._sizes)
            if not (np.abs(error) <= allowed).all():
                return False
        return bool(theta[:-1].all()) or self._slopes_agree(out)

    def _slopes_agree(self, out: Tensor) -> bool:
        try:
            found = torch.autograd.grad(out, self._parameters, self._signs)
        except RuntimeError:  # no gradient comes to one of them
            return False
        slopes = np.concatenate([one.numpy().ravel() for one in found])
        error = np.abs(slopes - self._gradient[:-1])
        return bool((error <= self._error * self._magnitude[:-1]).all())
