"""train_step where a model does not treat every row alike, whatever the number of rows."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gdcore

from ..devices import NOT_EMULATED, ON_CPU

# Known by their names alone, models step natively elsewhere; these step eagerly there.
pytestmark = pytest.mark.usefixtures("device")

Model = Callable[[Tensor, Tensor], Tensor]

DEPENDENT: dict[str, Model] = {
    "flip": lambda x, w: x.flip(0) @ w,
    "the number of rows": lambda x, w: x @ w / len(x),
    "centred": lambda x, w: x @ w - (x @ w).mean(0),
    "one row is special": lambda x, w: x @ w * (2 if len(x) == 1 else 1),
    "so many rows": lambda x, w: x @ w * (2 if 5 < len(x) < 10 else 1),
    "detached when many": lambda x, w: x @ w - (x @ w if len(x) > 9 else 0 * (x @ w)).detach(),
}


def tensors() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y, W = (
        torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(
            torch.get_default_device()
        )
        for shape in ((12, 3), (12, 1), (3, 1))
    )
    return x, y, W.requires_grad_()


def step_by_step(model: Model, counts: list[int], x: Tensor, y: Tensor) -> None:
    """Each step's loss is the eager one's, and so are the parameters after it."""
    ours, theirs = tensors()[2], tensors()[2]
    optimizer = torch.optim.SGD([theirs], lr=0.1)
    step = gdcore.train_step(lambda x: model(x, ours), F.mse_loss, torch.optim.SGD([ours], lr=0.1))
    for n in counts:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x[:n], theirs), y[:n])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        torch.testing.assert_close(step(x[:n], y[:n]), loss.detach(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@NOT_EMULATED
@pytest.mark.parametrize("counts", [[1, 12, 1, 12], [1, 1, 2, 8, 12], [3, 7, 12, 1], [12, 8, 8, 2]])
@pytest.mark.parametrize("name", DEPENDENT)
def test_rows_that_depend_on_their_number_or_on_others(name: str, counts: list[int]) -> None:
    x, y, _ = tensors()
    step_by_step(DEPENDENT[name], counts, x, y)


@ON_CPU
@pytest.mark.parametrize("name", DEPENDENT)
def test_one_row_proves_nothing(name: str) -> None:
    """Taken or not for it, twelve rows are refused where they are not twelve times one."""
    x, y, W = tensors()
    step = gdcore.train_step(
        lambda x: DEPENDENT[name](x, W), F.mse_loss, torch.optim.SGD([W], lr=0.1), strict=True
    )

    def steps() -> None:
        for n in (1, 8, 12):
            step(x[:n], y[:n])

    with pytest.raises(ValueError, match="model: "):
        steps()


@NOT_EMULATED
@pytest.mark.parametrize(
    "model",
    [
        lambda x, w: x.flip(0) @ w,
        lambda x, w: x.clamp(-2, 2) @ w,
        lambda x, w: torch.where(x.abs() < 1e-2, 0.0, x) @ w,
    ],
)
def test_rows_whose_numbers_hide_it(model: Model) -> None:
    """All rows equal, or none beyond the threshold, at the first step."""
    x, y, _ = tensors()
    x[:6] = 0.5
    x[6:] *= 10
    x[6:, 0] = 1e-3
    ours, theirs = tensors()[2], tensors()[2]
    step = gdcore.train_step(lambda x: model(x, ours), F.mse_loss, torch.optim.SGD([ours], lr=0.0))
    for rows in (x[:6], x[6:]):
        expected = F.mse_loss(model(rows, theirs), y[:6]).detach()
        torch.testing.assert_close(step(rows, y[:6]), expected, rtol=1e-12, atol=0.0)


@ON_CPU
def test_a_number_of_rows_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    own = gdcore.affine.affine_form
    monkeypatch.setattr(
        gdcore.affine, "affine_form", lambda *given: (looked.append(1), own(*given))[1]
    )
    x, y, W = tensors()
    step = gdcore.train_step(lambda x: x @ W, F.mse_loss, torch.optim.SGD([W], lr=0.0), strict=True)
    for n in 5 * (12, 5, 1):
        step(x[:n], y[:n])
    assert len(looked) == 4  # the first, and each of the three
