"""train_step with models that are known by what they do: natively, and never out of date."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gdcore

from ..devices import NOT_EMULATED, ON_CPU

# Known by their names alone, models step natively elsewhere; these step eagerly there.
pytestmark = pytest.mark.usefixtures("device")

Made = tuple[Callable[[Tensor], Tensor], list[Tensor]]


class Wrapped(nn.Module):
    factor = 1.0

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(3, outputs, dtype=torch.float64)
        self.scale = 1.0
        self.parts = [2.0]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x) * (self.scale * self.factor * self.parts[0])
        return out


def module(kind: Callable[[], nn.Module]) -> Made:
    torch.manual_seed(0)
    made = kind()
    return made, list(made.parameters())


def randn(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    return drawn.to(torch.get_default_device())


def tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [randn(shape, generator).requires_grad_() for shape in shapes]


def raw() -> Made:
    W, b = tensors((3, 1), (1,))
    return lambda x: x @ W + b, [W, b]


def two_outputs() -> Made:
    W, b = tensors((3, 2), (2,))
    return lambda x: b + 3 * x @ W, [b, W]


def added() -> Made:
    W, V = tensors((3, 1), (3, 1))
    return lambda x: (x @ W + x @ V).flatten(), [W, V]


def line() -> Made:
    W, b = tensors((1,), (1,))
    return lambda x: W * x[:, :1] + b, [W, b]


MODELS: dict[str, Callable[[], Made]] = {
    "a class": lambda: module(Wrapped),
    "two outputs": two_outputs,
    "flattened": lambda: module(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 1, bias=False, dtype=torch.float64))
    ),
    "raw tensors": raw,
    "added": added,
    "a column": line,
}
LOSSES: dict[str, Any] = {
    "MSELoss": nn.MSELoss(),
    "mean": lambda h, y: torch.mean((h - y) ** 2),
    "partial": functools.partial(F.mse_loss, reduction="sum"),
}


def data(n: int, like: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    x = randn((n, 3), generator)
    with torch.no_grad():
        y = like(x)
    return x, randn(y.shape, generator)


def eagerly(made: Made, loss_fn: Any, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss: Tensor = loss_fn(made[0](x), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


@NOT_EMULATED
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", MODELS)
def test_as_the_eager_step(model: str, loss: str, kind: str, device: torch.device) -> None:
    """On the CPU with ``strict``, so natively; rows and layouts change from step to step."""
    ours, theirs, loss_fn = MODELS[model](), MODELS[model](), LOSSES[loss]
    optimizers = [getattr(torch.optim, kind)(made[1], lr=0.01) for made in (ours, theirs)]
    strict = device.type == "cpu"
    step = gdcore.train_step(ours[0], loss_fn, optimizers[0], strict=strict)
    for n in (20, 1, 7, 20, 300):
        x, y = data(n, theirs[0])
        found = step(x.T.contiguous().T if n == 7 else x, y)
        expected = eagerly(theirs, loss_fn, optimizers[1], x, y)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)
        for mine, other in zip(ours[1], theirs[1], strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)
            assert mine.grad is None


def scale(model: Any, optimizer: Any) -> None:
    model.scale = 0.5


def content(model: Any, optimizer: Any) -> None:
    model.parts[0] = 5.0


def of_the_class(model: Any, optimizer: Any) -> None:
    type(model).factor = 3.0


def layer(model: Any, optimizer: Any) -> None:
    model.linear = nn.Linear(3, 1, dtype=torch.float64)
    with torch.no_grad():
        for p in model.linear.parameters():
            p.fill_(0.25)


def same_layer(model: Any, optimizer: Any) -> None:
    """Of equal numbers, so that no prediction tells; but these are not the optimizer's."""
    new = nn.Linear(3, 1, dtype=torch.float64)
    new.load_state_dict(model.linear.state_dict())
    model.linear = new


def frozen(model: Any, optimizer: Any) -> None:
    model.linear.weight.requires_grad_(False)


def forward_of_its_own(model: Any, optimizer: Any) -> None:
    model.forward = lambda x: model.linear(x).detach() + model.linear.bias - model.linear.bias


def forward_hook(model: Any, optimizer: Any) -> None:
    model.linear.register_forward_hook(lambda module, args, out: out.tanh())


def gradient_hook(model: Any, optimizer: Any) -> None:
    model.linear.weight.register_hook(lambda grad: 2 * grad)


def another_group(model: Any, optimizer: Any) -> None:
    optimizer.param_groups[0]["lr"] = 0.5


CHANGES = [
    scale,
    content,
    of_the_class,
    layer,
    same_layer,
    frozen,
    forward_of_its_own,
    forward_hook,
    gradient_hook,
    another_group,
]


@NOT_EMULATED
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_nothing_that_was_seen_is_out_of_date(
    change: Callable[[Any, Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Wrapped, "factor", 1.0)
    ours, theirs, loss_fn = module(Wrapped), module(Wrapped), nn.MSELoss()
    optimizers = [torch.optim.SGD(made[1], lr=0.01, momentum=0.5) for made in (ours, theirs)]
    step = gdcore.train_step(ours[0], loss_fn, optimizers[0])
    x, y = data(20, theirs[0])
    for i in range(6):
        if i == 3:
            for made, optimizer in zip((ours, theirs), optimizers, strict=True):
                change(made[0], optimizer)
        expected = eagerly(theirs, loss_fn, optimizers[1], x, y)
        if i >= 3 and change in (layer, same_layer):
            with pytest.raises(ValueError, match="expected to hold a parameter"):
                step(x, y)
            continue
        torch.testing.assert_close(step(x, y), expected, rtol=1e-12, atol=0.0)
        for mine, other in zip(ours[1], theirs[1], strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)


@ON_CPU
def test_what_x_alone_decides() -> None:
    """A branch on the values of x, and a tensor that only looks like x."""
    (W,) = tensors((3, 1))
    optimizer = torch.optim.SGD([W], lr=0.01)
    x, y = data(4, lambda x: x @ W)

    def branches(rows: Tensor) -> Tensor:
        return rows @ W if rows.sum() > 0 else -rows @ W

    for model in (branches, lambda rows: x @ W):
        with pytest.raises(ValueError, match="model: "):
            gdcore.train_step(model, nn.MSELoss(), optimizer, strict=True)(x, y)
    step = gdcore.train_step(branches, nn.MSELoss(), optimizer)
    for rows in (x, -x, x.abs()):
        expected = F.mse_loss(branches(rows), y).detach()
        torch.testing.assert_close(step(rows, y), expected, rtol=1e-12, atol=0.0)


@NOT_EMULATED
def test_a_loss_that_is_a_mean_of_so_many_rows_only() -> None:
    made, theirs = raw(), raw()
    optimizers = [torch.optim.SGD(one[1], lr=0.01) for one in (made, theirs)]

    def of_four(h: Tensor, y: Tensor) -> Tensor:
        return ((h - y) ** 2).sum() / 4

    step = gdcore.train_step(made[0], of_four, optimizers[0])
    for n in (4, 9, 4):
        x, y = data(n, theirs[0])
        expected = eagerly(theirs, of_four, optimizers[1], x, y)
        torch.testing.assert_close(step(x, y), expected, rtol=1e-12, atol=0.0)


@ON_CPU
def test_a_model_that_always_changes_is_not_looked_at_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = []
    own = gdcore.affine.affine_form
    monkeypatch.setattr(
        gdcore.affine, "affine_form", lambda *given: (looked.append(1), own(*given))[1]
    )
    model, held = module(Wrapped)
    optimizer = torch.optim.SGD(held, lr=0.01)
    step = gdcore.train_step(model, nn.MSELoss(), optimizer)
    x, y = data(5, model)
    for i in range(100):
        model.scale = 1 / (i + 1)
        step(x, y)
    assert 2 < len(looked) < 20  # twice at each look


@ON_CPU
def test_natively() -> None:
    """The step that the other tests compare is not the eager one by another name."""
    for make in MODELS.values():
        made = make()
        optimizer = torch.optim.SGD(made[1], lr=0.01)
        x, y = data(5, made[0])
        step = gdcore.train_step(made[0], nn.MSELoss(), optimizer)
        step(x, y)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "backward", None)
            step(x, y)


@ON_CPU
def test_data_that_are_too_large_to_copy_step_eagerly() -> None:
    made, theirs = raw(), raw()
    optimizers = [torch.optim.SGD(one[1], lr=0.01) for one in (made, theirs)]
    step = gdcore.train_step(made[0], nn.MSELoss(), optimizers[0])
    for n in (20, 60_000, 20):
        x, y = data(n, theirs[0])
        expected = eagerly(theirs, nn.MSELoss(), optimizers[1], x, y)
        torch.testing.assert_close(step(x, y), expected, rtol=1e-12, atol=0.0)
    strict = gdcore.train_step(made[0], nn.MSELoss(), optimizers[0], strict=True)
    with pytest.raises(ValueError, match="x: expected at most"):
        strict(*data(60_000, theirs[0]))


@NOT_EMULATED
@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "program_of",
    [torch.jit.script, lambda model: torch.jit.trace(model, torch.ones(2, 3).double())],
)
def test_a_compiled_module_steps_eagerly(program_of: Callable[[nn.Module], Any]) -> None:
    made, held = module(lambda: nn.Sequential(nn.Linear(3, 1, dtype=torch.float64)))
    assert isinstance(made, nn.Module)
    program = program_of(made)
    step = gdcore.train_step(program, nn.MSELoss(), torch.optim.SGD(held, lr=0.01))
    x, y = data(5, made)
    expected = F.mse_loss(program(x), y).detach()
    torch.testing.assert_close(step(x, y), expected, rtol=1e-12, atol=0.0)


@ON_CPU
def test_one_bad_batch_does_not_leave_the_steps_eager() -> None:
    made = raw()
    step = gdcore.train_step(made[0], nn.MSELoss(), torch.optim.SGD(made[1], lr=0.0))
    x, y = data(5, made[0])
    step(x, y)
    bad = x.clone()
    bad[0] = torch.inf
    with torch.no_grad():
        held = [p.clone() for p in made[1]]
        step(bad, y)
        for parameter, value in zip(made[1], held, strict=True):
            parameter.copy_(value)
    for _ in range(10):
        step(x, y)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", None)
        step(x, y)
