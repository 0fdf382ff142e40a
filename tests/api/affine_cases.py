"""What the tests of recognition share: a form's prediction, and a check of it against the model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gdcore.affine import AffineForm, NotAffine, affine_form


@contextmanager
def moved(namespace: dict[str, Any], device: torch.device) -> Iterator[None]:
    """What a file made on the CPU, when it was imported, is on the device, and is itself."""
    values = [t for v in namespace.values() for t in (v if isinstance(v, tuple) else (v,))]
    homes = [(t, t.data) for t in values if isinstance(t, Tensor) and t.device != device]
    for t, home in homes:
        t.data = home.to(device)
    yield
    for t, home in homes:
        t.data = home


def tensor(*shape: int, scale: float = 1.0) -> Tensor:
    """A trained tensor of the raw-tensor kind."""
    return (scale * torch.randn(shape, dtype=torch.float64)).requires_grad_()


def predicted(form: AffineForm) -> Tensor:
    """The prediction at the parameters' present values, from the definition."""
    theta = torch.cat([p.detach().reshape(-1) for p in form.parameters])
    theta = torch.cat([theta, theta.new_zeros(1)])
    out = form.features @ theta[form.index].T
    if form.offset is not None:
        out = out + form.offset
    return out.reshape(form.shape)


def taken(
    model: Callable[..., Any], parameters: Sequence[Tensor], x: Tensor | tuple[Tensor, ...]
) -> AffineForm:
    """The form, which is the model's at its own parameters and at two others."""
    before = [(p.detach().clone(), p._version, p.grad) for p in parameters]
    form = affine_form(model, parameters, x)
    assert isinstance(form, AffineForm), form
    for p, (value, version, grad) in zip(parameters, before, strict=True):
        assert torch.equal(p.detach(), value)
        assert p._version == version
        assert p.grad is grad
    xs = x if isinstance(x, tuple) else (x,)
    assert form.features.dim() == form.index.dim() == 2
    assert not form.features.requires_grad
    assert form.index.dtype == torch.int64
    assert form.index.shape[1] == form.features.shape[1]
    assert form.shape.numel() == form.features.shape[0] * form.index.shape[0]
    if form.rowwise:
        assert form.features.shape[0] == xs[0].shape[0]
    if form.offset is not None:
        assert form.offset.shape == (form.features.shape[0], form.index.shape[0])
        assert not form.offset.requires_grad
    for _ in range(3):
        torch.testing.assert_close(
            predicted(form), model(*xs).detach(), rtol=1e-12, atol=1e-12, check_dtype=True
        )
        with torch.no_grad():
            for p in form.parameters:
                p.add_(torch.randn_like(p))
    with torch.no_grad():
        for p, (value, _, _) in zip(parameters, before, strict=True):
            p.copy_(value)
    return form


def refused(
    model: Callable[..., Any],
    parameters: Sequence[Tensor],
    x: Tensor | tuple[Tensor, ...],
    *words: str,
    where: str | None = None,
) -> NotAffine:
    """The refusal, whose reason contains the words; nothing was changed."""
    before = [(p.detach().clone(), p._version) for p in parameters]
    random = torch.get_rng_state()
    found = affine_form(model, parameters, x)
    assert isinstance(found, NotAffine), found
    for word in words:
        assert word in found.reason, found
    assert "\n" not in found.reason
    if where is not None:
        assert found.where is not None, found
        assert where in found.where, found
    for p, (value, version) in zip(parameters, before, strict=True):
        assert torch.equal(p.detach(), value)
        assert p._version == version
    assert torch.equal(torch.get_rng_state(), random)
    return found
