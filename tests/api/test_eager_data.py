"""Data and options that native code does not take, but torch: they train eagerly, and the plan says
why.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gdcore

from ..devices import ON_CPU
from .plain_torch import plain_loop
from .training_cases import twin

STEPS = 3


class Halved(Tensor):
    """A tensor with rules of its own."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        return result / 2 if func is F.linear else result


def negated(tensor: Tensor) -> Tensor:
    """Its negation, lazily."""
    return torch.complex(tensor, tensor).conj().imag


# What is done to x or y, and what the plan says of it.
KINDS: dict[str, tuple[Callable[[Tensor], Tensor], str, str]] = {
    "requires grad": (lambda t: t.clone().requires_grad_(), "xy", "require grad"),
    "has a graph": (lambda t: t.clone().requires_grad_() * 1.0, "xy", "require grad"),
    "negated": (negated, "xy", "lazy negation"),
    "with rules of its own": (lambda t: t.as_subclass(Halved), "xy", "plain tensor, got a Halved"),
    "sparse": (lambda t: t.to_sparse(), "x", "dense tensor with storage, got torch.sparse_coo"),
    "sparse rows": (lambda t: t.to_sparse_csr(), "x", "dense tensor with storage, got torch.sp"),
}
CASES = [
    pytest.param(kind, which, device, marks=pytest.mark.cuda if device == "cuda" else ())
    for kind, (_, argument, _) in KINDS.items()
    for which in argument
    for device in ("cpu", "emulated", "cuda")
    # What torch has for sparse rows is not the same everywhere.
    if device != "cuda" or "sparse" not in kind
]
EACH = pytest.mark.parametrize(("kind", "which", "device"), CASES, indirect=["device"])
pytestmark = [
    pytest.mark.usefixtures("device"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state"),
]


def problem(kind: str, which: str) -> tuple[nn.Module, Tensor, Tensor, str]:
    random = torch.Generator().manual_seed(0)
    model = nn.Linear(3, 2, dtype=torch.float64)
    both = torch.randn(9, 5, generator=random, dtype=torch.float64, device="cpu")
    x, y = both.to(torch.get_default_device()).split([3, 2], 1)
    x, y = x.contiguous(), y.contiguous()
    change, _, why = KINDS[kind]
    return model, *((change(x), y) if which == "x" else (x, change(y))), why


def plain(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, nn.Module]:
    other = twin(model)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    losses = plain_loop(other, nn.MSELoss(), optimizer, x.detach(), y.detach(), STEPS)
    return losses, other


def agree(
    losses: Tensor, model: nn.Module, expected: tuple[Tensor, nn.Module], **close: float
) -> None:
    """Three steps over a few rows in float64: some tens of roundings."""
    close = close or {"rtol": 1e-13, "atol": 1e-13}
    expected_losses = expected[0].as_subclass(Tensor)
    torch.testing.assert_close(losses, expected_losses, check_device=False, **close)
    for mine, other in zip(model.parameters(), expected[1].parameters(), strict=True):
        torch.testing.assert_close(mine, other, **close)


@EACH
def test_a_fit(kind: str, which: str) -> None:
    model, x, y, why = problem(kind, which)
    expected = plain(model, x, y)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match=why):
        gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=STEPS, strict=True)
    assert gdcore.explain(model, nn.MSELoss(), optimizer, (x, y), epochs=STEPS).method == "eager"
    history = gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=STEPS)
    assert history.plan.method == "eager"
    assert history.plan.why.startswith(f"{which}: expected ")
    assert why in history.plan.why
    agree(history.loss, model, expected)
    assert x.grad_fn is not None or x.grad is None


@pytest.mark.parametrize("method", ["stepwise", "compressed", "eager"])
def test_weights_that_are_negated(method: str) -> None:
    """Read as they are, they would be of the other sign, and a sum would be, too."""
    model, x, y, _ = problem("negated", "x")
    other, weight = twin(model), negated(-torch.rand(9, dtype=torch.float64) - 0.5)
    assert weight.is_neg()
    loss, losses = nn.MSELoss(reduction="sum"), []
    for each, given in ((model, weight), (other, weight.resolve_neg())):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.001)
        data = (x.resolve_neg(), y)
        ran = gdcore.fit(each, loss, optimizer, data, epochs=STEPS, weight=given, method=method)
        losses.append(ran.loss)
    assert losses[0][0] > 0
    assert torch.equal(losses[0], losses[1])


@EACH
def test_a_step(kind: str, which: str) -> None:
    """Before and after a step with data as they should be: the native step is still there."""
    model, x, y, why = problem(kind, which)
    expected = plain(model, x, y)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    strict = gdcore.train_step(model, nn.MSELoss(), optimizer, strict=True)
    with pytest.raises(ValueError, match=why):
        strict(x, y)
    step = gdcore.train_step(model, nn.MSELoss(), optimizer)
    losses = [step(x, y).as_subclass(Tensor) for _ in range(STEPS)]
    agree(torch.stack(losses), model, expected)
    good = torch.ones(4, 3).double(), torch.ones(4, 2).double()
    step(*good)
    strict(*good)
    assert step(x, y).isfinite()


@pytest.mark.parametrize("way", ["fit", "train_step"])
def test_autocast(way: str, device: torch.device) -> None:
    model, x, y = nn.Linear(3, 2), torch.randn(9, 3), torch.randn(9, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with torch.autocast(device.type, torch.bfloat16):
        expected = plain(model, x, y)
        if way == "fit":
            with pytest.raises(ValueError, match="autocast"):
                gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=STEPS, strict=True)
            history = gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=STEPS)
            assert history.plan.why.startswith("autocast: expected it to be off")
            losses = history.loss
        else:
            with pytest.raises(ValueError, match="autocast"):
                gdcore.train_step(model, nn.MSELoss(), optimizer, strict=True)(x, y)
            step = gdcore.train_step(model, nn.MSELoss(), optimizer)
            losses = torch.stack([step(x, y) for _ in range(STEPS)])
    # A gradient that is another in float32's last digit may be rounded to another bfloat16.
    agree(losses, model, expected, rtol=2**-8, atol=2**-8)


@pytest.mark.parametrize("shape", [(3,), (4, 5, 3)], ids=str)
@pytest.mark.parametrize("way", ["fit", "train_step"])
def test_rows_in_another_number_of_dimensions(way: str, shape: tuple[int, ...]) -> None:
    """A vector or a stack of rows, which Linear takes: a fit finds that it is affine all the same,
    a step is made eagerly.
    """
    model = nn.Linear(3, 2, dtype=torch.float64)
    x, y = torch.randn(shape).double(), torch.randn(*shape[:-1], 2).double()
    expected = plain(model, x, y)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if way == "fit":
        history = gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=STEPS, strict=True)
        losses = history.loss
    else:
        with pytest.raises(ValueError, match=r"x: expected shape \(n, d\)"):
            gdcore.train_step(model, nn.MSELoss(), optimizer, strict=True)(x, y)
        step = gdcore.train_step(model, nn.MSELoss(), optimizer)
        losses = torch.stack([step(x, y) for _ in range(STEPS)])
    agree(losses, model, expected)


def adam(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.1, foreach=False, **options)


def test_betas_that_are_tensors() -> None:
    model = nn.Linear(3, 2, dtype=torch.float64)
    other = twin(model)
    x, y = torch.randn(9, 3).double(), torch.randn(9, 2).double()
    betas = torch.tensor(0.8), torch.tensor(0.95)
    optimizer = adam(model, betas=betas)
    with pytest.raises(ValueError, match="betas that are numbers"):
        gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=STEPS, strict=True)
    history = gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=STEPS)
    assert "betas that are numbers" in history.plan.why
    losses = plain_loop(other, nn.MSELoss(), adam(other, betas=betas), x, y, STEPS)
    agree(history.loss, model, (losses, other))


@ON_CPU
@pytest.mark.parametrize("option", ["capturable", "differentiable"])
def test_options_that_torch_refuses_here(option: str) -> None:
    """Its error, in plain PyTorch and in a fit; the plan says why the step would be torch's."""
    model = nn.Linear(3, 2)
    before = [p.detach().clone() for p in model.parameters()]
    data = torch.ones(9, 3), torch.ones(9, 2)
    with pytest.raises((AssertionError, RuntimeError)) as theirs:
        plain_loop(model, nn.MSELoss(), adam(model, **{option: True}), *data, 1)
    optimizer = adam(model, **{option: True})
    assert option in gdcore.explain(model, nn.MSELoss(), optimizer, data, epochs=1).why
    with pytest.raises(theirs.type) as mine:
        gdcore.fit(model, nn.MSELoss(), optimizer, data, epochs=1)
    assert str(mine.value) == str(theirs.value)
    assert all(map(torch.equal, before, model.parameters()))
    with pytest.raises(ValueError, match=f"{option}=False"):
        gdcore.fit(model, nn.MSELoss(), optimizer, data, epochs=1, strict=True)
