"""Models that are affine in their parameters, as features and places of parameters."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._recognition.models import recognise_model
from .._seen import Look

__all__ = ["Form", "NoDesign", "form_of"]


class NoDesign(NamedTuple):
    """Why there is no such problem."""

    reason: str


class Form(NamedTuple):
    """prediction[i, o] = offset[i, o] + Σⱼ features[i, j] θ[places[o, j]], where θ[-1] is 0."""

    names: tuple[str, ...]
    parameters: tuple[Tensor, ...]
    features: Tensor
    places: Tensor
    offset: Tensor | None
    shape: torch.Size
    rowwise: bool
    """Whether row i of the prediction depends on row i of x only."""


def _plain_form(model: Any, x: Tensor) -> Form | NoDesign:
    """A linear layer or a polynomial, without tracing."""
    name = type(model).__name__
    try:
        native = recognise_model(model, Look())
    except (TypeError, ValueError):
        return NoDesign(f"{name} is not known to be affine in its parameters")
    if native.kernel == "legendre":
        return NoDesign(f"{name} is not affine in its parameters")
    if native.kernel == "polynomial":
        (coefficients,) = native.parameters
        if x.dim() != 1:
            raise ValueError(f"x: expected shape (n,), got {tuple(x.shape)}")
        powers = torch.arange(coefficients.numel(), device=x.device)
        features = x.detach().double()[:, None] ** powers
        index = powers[None]
        return Form(native.names, native.parameters, features, index, None, x.shape, True)
    weight = native.parameters[0]
    k, d = weight.shape
    if x.dim() != 2 or x.shape[1] != d:
        raise ValueError(f"x: expected shape (n, {d}), got {tuple(x.shape)}")
    features, index = x.detach(), torch.arange(k * d, device=x.device).reshape(k, d)
    if len(native.parameters) == 2:
        features = torch.cat([features, features.new_ones(len(x), 1)], 1)
        index = torch.cat([index, k * d + torch.arange(k, device=x.device)[:, None]], 1)
    shape = torch.Size((len(x) * k,) if native.flat else (len(x), k))
    return Form(native.names, native.parameters, features, index, None, shape, True)


def form_of(model: Any, parameters: Sequence[Tensor], x: Tensor) -> Form | NoDesign:
    """A model as a function of those of the parameters that require grad.

    Args:
        model: a module, or a function of x.
        parameters: those that may be trained; all others are constants.
        x: the input, with rows along its first dimension.
    """
    plain = _plain_form(model, x)
    if isinstance(plain, Form):
        return _trained_only(plain, parameters)
    try:
        affine = importlib.import_module("gdcore.affine")
    except ModuleNotFoundError:
        return plain
    found = affine.affine_form(model, parameters, x)
    if not isinstance(found, affine.AffineForm):
        return NoDesign(found.reason if found.where is None else f"{found.reason} ({found.where})")
    return Form(
        found.names,
        found.parameters,
        found.features,
        found.index,
        found.offset,
        found.shape,
        found.rowwise,
    )


def _trained_only(form: Form, parameters: Sequence[Tensor]) -> Form:
    """The form with what is not trained moved into the offset."""
    held = set(map(id, parameters))
    trained = [p.requires_grad and id(p) in held for p in form.parameters]
    if all(trained):
        return form
    device = form.places.device
    flat = torch.cat([p.detach().reshape(-1).double() for p in form.parameters])
    stays = torch.cat(
        [
            torch.full((p.numel(),), t, device="cpu")
            for p, t in zip(form.parameters, trained, strict=True)
        ]
    )
    place = torch.where(stays, stays.cumsum(0) - 1, -1).to(device)
    frozen = torch.where(stays, 0.0, flat.cpu()).to(device)
    offset = form.features.double() @ frozen[form.places].T
    index = place[form.places]
    used = (index >= 0).any(0)
    kept = [(n, p) for n, p, t in zip(form.names, form.parameters, trained, strict=True) if t]
    return Form(
        tuple(name for name, _ in kept),
        tuple(parameter for _, parameter in kept),
        form.features[:, used],
        index[:, used],
        offset if form.offset is None else form.offset + offset,
        form.shape,
        form.rowwise,
    )
