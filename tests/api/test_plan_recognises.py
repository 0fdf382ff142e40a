"""What train_step and fit take natively, and how they say so when they are strict and refuse."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gdcore

from ..devices import ON_CPU
from .training_cases import CASES, line, make

pytestmark = pytest.mark.usefixtures("device")

Loss = Callable[[Tensor, Tensor], Tensor]


def sgd(model: nn.Module, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, **options})


def refuses(
    kind: type[Exception], argument: str, *parts: str, model: Any, loss_fn: Any, optimizer: Any
) -> None:
    """A strict step refuses: this kind of error, naming the argument and each of the parts.

    So does `fit` what is no model, loss or optimizer at all. Of others it looks at what they do.
    """
    x, y = torch.zeros(3, 1), torch.zeros(3, 1)
    trains = [lambda: gdcore.train_step(model, loss_fn, optimizer, strict=True)]
    if kind is TypeError:
        trains.append(lambda: gdcore.fit(model, loss_fn, optimizer, (x, y), epochs=1))  # type: ignore[arg-type,return-value]
    for train in trains:
        with pytest.raises((TypeError, ValueError)) as info:
            train()
        assert type(info.value) is kind, str(info.value)
        message = str(info.value)
        assert message.startswith(f"{argument}: expected "), message
        for part in (*parts, "got "):
            assert part in message, message


class Scaled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class OtherPolynomial(gdcore.nn.PolynomialRegression):
    """A subclass, even one that changes nothing."""


class OtherLoss(nn.MSELoss):
    """A subclass, even one that changes nothing."""


class OtherSequential(nn.Sequential):
    """Likewise."""


KNOWN_BY_WHAT_THEY_DO: dict[str, Callable[[], nn.Module]] = {
    "subclass of Linear": lambda: Scaled(1, 1),
    "subclass of Sequential": lambda: OtherSequential(nn.Linear(1, 1), nn.Flatten(0, 1)),
    "Sequential of one": lambda: nn.Sequential(nn.Linear(1, 1)),
    "Sequential of a subclass": lambda: nn.Sequential(Scaled(1, 1), nn.Flatten()),
    "Sequential of three": lambda: nn.Sequential(nn.Linear(1, 1), nn.Flatten(), nn.Flatten()),
    "Sequential in Sequential": lambda: nn.Sequential(nn.Sequential(nn.Linear(1, 1)), nn.Flatten()),
}
UNRECOGNISED_MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "subclass of ours": (lambda: OtherPolynomial(2), "OtherPolynomial"),
    "Sequential of a polynomial": (
        lambda: nn.Sequential(gdcore.nn.PolynomialRegression(2), nn.Flatten(0, 0)),
        "Sequential",
    ),
    "Sequential of two Linears": (
        lambda: nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)),
        "Sequential",
    ),
    "network": (lambda: nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1)), "Sequential"),
    "parametrised": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(1, 1)),
        "ParametrizedLinear",
    ),
}


@ON_CPU  # on CUDA a step knows models by their names alone
@pytest.mark.parametrize("name", KNOWN_BY_WHAT_THEY_DO)
def test_models_that_are_known_by_what_they_do(name: str) -> None:
    model, loss_fn = KNOWN_BY_WHAT_THEY_DO[name](), OtherLoss()
    optimizer = sgd(model)
    step = gdcore.train_step(model, loss_fn, optimizer, strict=True)
    x, y = torch.randn(5, 1), torch.randn(5, 1)
    y = y.reshape(model(x).shape)
    for _ in range(2):
        expected = loss_fn(model(x), y).detach()
        torch.testing.assert_close(step(x, y), expected)


@ON_CPU  # likewise
@pytest.mark.parametrize("name", UNRECOGNISED_MODELS)
def test_models_that_are_not_recognised(name: str) -> None:
    """What they do is seen at the first step only."""
    build, described = UNRECOGNISED_MODELS[name]
    model = build()
    step = gdcore.train_step(model, nn.MSELoss(), sgd(model), strict=True)
    x = torch.randn(5) if "poly" in name or "ours" in name else torch.randn(5, 1)
    with pytest.raises(ValueError, match=rf"^model: expected .* affine .*, got {described}: "):
        step(x, torch.zeros_like(x))


def test_no_model() -> None:
    none = nn.Linear(1, 1)
    refuses(TypeError, "model", "NoneType", model=None, loss_fn=nn.MSELoss(), optimizer=sgd(none))


@pytest.mark.parametrize("case", CASES)
def test_models_that_are_recognised(case: str) -> None:
    model, x, y = make(case)
    for loss_fn in (nn.MSELoss(), nn.MSELoss(reduction="sum"), F.mse_loss):
        assert gdcore.train_step(model, loss_fn, sgd(model, lr=1e-6))(x, y).isfinite()


def hook(*_: Any) -> None:
    """Does nothing, but is there."""


def own_forward(module: nn.Module) -> None:
    module.forward = lambda x: x


def old_weight_norm(module: nn.Module) -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(module)


CHANGES: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "forward hook": (lambda m: m.register_forward_hook(hook), "forward hook"),
    "forward pre-hook": (lambda m: m.register_forward_pre_hook(hook), "forward pre hook"),
    "forward hook with kwargs": (
        lambda m: m.register_forward_hook(hook, with_kwargs=True),
        "forward hook",
    ),
    "forward hook called always": (
        lambda m: m.register_forward_hook(hook, always_call=True),
        "forward hook",
    ),
    "backward hook": (lambda m: m.register_full_backward_hook(hook), "backward hook"),
    "backward pre-hook": (lambda m: m.register_full_backward_pre_hook(hook), "backward pre hook"),
    "replaced forward": (own_forward, "forward"),
    "old weight norm": (old_weight_norm, "hook"),
    "old spectral norm": (lambda m: nn.utils.spectral_norm(m), "hook"),
    "hook on a parameter": (lambda m: m.get_parameter("weight").register_hook(hook), "weight"),
    "hook after accumulation": (
        lambda m: m.get_parameter("weight").register_post_accumulate_grad_hook(hook),
        "weight",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_modules_that_run_something_else(change: str) -> None:
    model = nn.Linear(1, 1)
    optimizer = sgd(model)
    apply, said = CHANGES[change]
    apply(model)
    for wrapped in (model, nn.Sequential(model, nn.Flatten(0, 1))):
        refuses(ValueError, "model", said, model=wrapped, loss_fn=nn.MSELoss(), optimizer=optimizer)


MODULE_CHANGES = [
    name for name in CHANGES if "parameter" not in name and "old" not in name and "acc" not in name
]


@pytest.mark.parametrize("change", MODULE_CHANGES)
@pytest.mark.parametrize("part", ["Sequential", "Flatten", "PolynomialRegression", "MSELoss"])
def test_every_part_is_looked_at(part: str, change: str) -> None:
    model: nn.Module = nn.Sequential(nn.Linear(1, 1), nn.Flatten(0, 1))
    loss_fn = nn.MSELoss()
    if part == "PolynomialRegression":
        model = gdcore.nn.PolynomialRegression(1)
    optimizer = sgd(model)
    changed = {"Flatten": model.get_submodule("1" if part == "Flatten" else ""), "MSELoss": loss_fn}
    apply, said = CHANGES[change]
    apply(changed.get(part, model))
    argument = "loss_fn" if part == "MSELoss" else "model"
    refuses(ValueError, argument, said, model=model, loss_fn=loss_fn, optimizer=optimizer)


LOSSES: dict[str, tuple[type[Exception], Any, str]] = {
    "another loss": (ValueError, nn.L1Loss(), "L1Loss"),
    "another function": (ValueError, F.l1_loss, "l1_loss"),
    "partial": (ValueError, functools.partial(F.l1_loss, reduction="sum"), "partial"),
    "the class itself": (TypeError, nn.MSELoss, "MSELoss"),
    "string": (TypeError, "mse", "str"),
    "nothing": (TypeError, None, "NoneType"),
    "no reduction": (ValueError, nn.MSELoss(reduction="none"), "'none'"),
    "no reduction of ours": (ValueError, gdcore.nn.MSELoss("none"), "'none'"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_that_are_not_recognised(name: str) -> None:
    kind, loss_fn, described = LOSSES[name]
    model, _, _ = line()
    refuses(kind, "loss_fn", described, model=model, loss_fn=loss_fn, optimizer=sgd(model))


class OtherSGD(torch.optim.SGD):
    """A subclass, even one that changes nothing."""


OPTIMIZERS: dict[str, tuple[type[Exception], Callable[[nn.Module], Any], str]] = {
    "Adagrad": (ValueError, lambda m: torch.optim.Adagrad(m.parameters()), "Adagrad"),
    "subclass": (ValueError, lambda m: OtherSGD(m.parameters()), "OtherSGD"),
    "the class itself": (TypeError, lambda _: torch.optim.SGD, "SGD"),
    "parameters": (TypeError, lambda m: list(m.parameters()), "list"),
    "of another model": (ValueError, lambda _: sgd(nn.Linear(1, 1)), "a parameter of model"),
    "differentiable": (ValueError, lambda m: sgd(m, differentiable=True), "differentiable=False"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_that_are_not_recognised(name: str) -> None:
    kind, build, described = OPTIMIZERS[name]
    model, _, _ = line()
    refuses(kind, "optimizer", described, model=model, loss_fn=nn.MSELoss(), optimizer=build(model))


@pytest.mark.parametrize("when", ["pre", "post"])
def test_optimizers_with_hooks(when: str) -> None:
    model, _, _ = line()
    optimizer = sgd(model)
    getattr(optimizer, f"register_step_{when}_hook")(hook)
    refuses(ValueError, "optimizer", "hook", model=model, loss_fn=nn.MSELoss(), optimizer=optimizer)


def test_an_optimizer_whose_step_was_replaced() -> None:
    model, _, _ = line()
    optimizer = sgd(model)
    optimizer.step = hook  # type: ignore[method-assign, assignment]
    refuses(ValueError, "optimizer", "step", model=model, loss_fn=nn.MSELoss(), optimizer=optimizer)


def test_a_model_that_is_wholly_frozen() -> None:
    model, _, _ = line()
    model.requires_grad_(False)
    refuses(
        ValueError,
        "optimizer",
        "requires grad",
        model=model,
        loss_fn=nn.MSELoss(),
        optimizer=sgd(model),
    )


def only_some_counts(x: Tensor, w: Tensor) -> Tensor:
    return x @ w * (2 if 5 < len(x) < 10 else 1)


@pytest.mark.parametrize(
    ("batch_size", "read", "method"),
    [(8, False, "eager"), (6, False, "eager"), (5, False, "stepwise"), (8, True, "eager")],
)
def test_batches_of_their_own_size_are_tried(batch_size: int, read: bool, method: str) -> None:
    x, y = torch.randn(12, 3), torch.randn(12, 1)
    W = torch.zeros(3, 1, requires_grad=True)
    data: Any = (x, y)
    if read:
        rows = [*zip(x, y, strict=True)]
        data = torch.utils.data.DataLoader(rows, batch_size=batch_size)  # type: ignore[arg-type]
    history = gdcore.fit(
        lambda x: only_some_counts(x, W),
        F.mse_loss,
        torch.optim.SGD([W], lr=0.01),
        data,
        epochs=1,
        batch_size=None if read else batch_size,
    )
    assert history.plan.method == method
    last = gdcore.explain(
        lambda x: x @ W * (2 if len(x) == 2 else 1),
        F.mse_loss,
        torch.optim.SGD([W], lr=0.01),
        (x, y),
        epochs=1,
        batch_size=10,
    )
    assert last.method == "eager"
