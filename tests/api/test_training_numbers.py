"""train_step and fit have the numbers of the loop they replace, for every model and option."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gdcore

from .plain_torch import magnitudes, plain_loop, roundings
from .rounding import assert_within_rounding
from .training_cases import CASES, OPTIONS, make, twin

pytestmark = pytest.mark.usefixtures("device")

STEPS = 5
LR = 0.02
ROWS = 20

Train = Callable[..., Tensor]
Groups = Callable[[nn.Module], list[dict[str, Any]]]


def by_steps(
    model: nn.Module, loss_fn: Any, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, n: int
) -> Tensor:
    step = gdcore.train_step(model, loss_fn, optimizer)
    return torch.stack([step(x, y) for _ in range(n)])


def by_fit(
    model: nn.Module, loss_fn: Any, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, n: int
) -> Tensor:
    return gdcore.fit(model, loss_fn, optimizer, (x, y), epochs=n).loss


WAYS: dict[str, Train] = {"train_step": by_steps, "fit": by_fit}


def rules(model: nn.Module, groups: Groups) -> dict[str, dict[str, Any]]:
    """SGD's options for each parameter that is trained, by name."""
    return {
        name: {key: value for key, value in group.items() if key != "params"}
        for group in groups(model)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and any(parameter is held for held in group["params"])
    }


def compare(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    reduction: str,
    groups: Groups,
    kind: type[torch.optim.SGD] = torch.optim.SGD,
    steps: int = STEPS,
) -> None:
    """Losses, parameters and momentum of both ways are those of the plain loop, to rounding."""
    reference = twin(model)
    loss_fn = nn.MSELoss(reduction=reduction)
    plain = torch.optim.SGD(groups(reference), lr=1e9, foreach=False)
    trained = rules(model, groups)
    loss_size, sizes, momentum_sizes = magnitudes(model, reduction, trained, x, y, steps)
    bound = roundings(model, y.numel(), steps)
    expected = plain_loop(reference, loss_fn, plain, x, y, steps)
    assert len(expected.unique()) == steps

    for way, train in WAYS.items():
        fused = twin(model)
        optimizer = kind(groups(fused), lr=1e9)
        losses = train(fused, loss_fn, optimizer, x, y, steps)
        assert_within_rounding(losses, expected, loss_size, bound, f"{way}: losses")
        for (name, ours), theirs, before in zip(
            fused.named_parameters(), reference.parameters(), model.parameters(), strict=True
        ):
            assert_within_rounding(ours, theirs, sizes[name], bound, f"{way}: {name}")
            assert torch.equal(ours, before) == (name not in trained), name
            buffer = optimizer.state.get(ours, {}).get("momentum_buffer")
            there = plain.state.get(theirs, {}).get("momentum_buffer")
            assert (buffer is None) == (there is None), name
            size = momentum_sizes.get(name)
            if buffer is not None and there is not None and size is not None:
                assert_within_rounding(buffer, there, size, bound, f"{way}: momentum of {name}")


def whole(options: dict[str, Any]) -> Groups:
    return lambda model: [{"params": list(model.parameters()), "lr": LR, **options}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("case", CASES)
def test_every_model_with_every_option(case: str, options: str) -> None:
    model, x, y = make(case, ROWS)
    compare(model, x, y, "mean", whole(OPTIONS[options]))


@pytest.mark.parametrize("case", CASES)
def test_sum(case: str) -> None:
    model, x, y = make(case, ROWS)
    compare(model, x, y, "sum", whole({**OPTIONS["all"], "lr": LR / y.numel()}))


@pytest.mark.parametrize("options", ["plain", "all"])
@pytest.mark.parametrize("case", CASES)
def test_float32(case: str, options: str) -> None:
    """One step: over more, the bound for float32 would show little that float64 has not."""
    model, x, y = make(case, ROWS, torch.float32)
    compare(model, x, y, "mean", whole(OPTIONS[options]), steps=1)


@pytest.mark.parametrize("options", OPTIONS)
def test_our_own_optimizer(options: str) -> None:
    model, x, y = make("Linear", ROWS)
    compare(model, x, y, "mean", whole(OPTIONS[options]), gdcore.optim.SGD)


@pytest.mark.parametrize("case", ["Linear", "LegendreRegression"])
def test_groups_with_options_of_their_own(case: str) -> None:
    model, x, y = make(case, ROWS)

    def groups(model: nn.Module) -> list[dict[str, Any]]:
        first, *others = model.parameters()
        return [
            {"params": others, "lr": LR / 3, "momentum": 0.5, "nesterov": True},
            {"params": [first], "lr": LR, "weight_decay": 0.2},
        ]

    compare(model, x, y, "mean", groups)


@pytest.mark.parametrize("how", ["requires_grad", "not held"])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("case", ["Linear", "Flatten(0, 1)", "LegendreRegression"])
def test_frozen_parameters_stay(case: str, place: int, how: str) -> None:
    model, x, y = make(case, ROWS)

    def groups(model: nn.Module) -> list[dict[str, Any]]:
        held = list(model.parameters())
        if how == "not held":
            held.pop(place)
        return [{"params": held, "lr": LR, **OPTIONS["all"]}]

    if how == "requires_grad":
        list(model.parameters())[place].requires_grad_(False)
    compare(model, x, y, "mean", groups)


def test_an_optimizer_that_holds_more_than_the_model() -> None:
    model, x, y = make("Linear", ROWS)
    other = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def groups(model: nn.Module) -> list[dict[str, Any]]:
        return [{"params": [other, *model.parameters()], "lr": LR, "momentum": 0.9}]

    compare(model, x, y, "mean", groups)
    assert other.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "loss_fn",
    [nn.MSELoss(), F.mse_loss, gdcore.nn.MSELoss(), gdcore.functional.mse_loss],
    ids=["nn.MSELoss", "F.mse_loss", "gdcore.nn.MSELoss", "gdcore.functional.mse_loss"],
)
def test_every_loss_means_the_same(loss_fn: Any, way: str) -> None:
    model, x, y = make("Linear", ROWS)
    other = twin(model)
    for each, loss in ((model, loss_fn), (other, nn.MSELoss())):
        WAYS[way](each, loss, torch.optim.SGD(each.parameters(), lr=LR), x, y, 3)
    assert all(map(torch.equal, model.parameters(), other.parameters()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("choice", [{"foreach": True}, {"fused": True}, {"lr": torch.tensor(0.25)}])
def test_how_torch_would_step_does_not_matter(choice: dict[str, Any], way: str) -> None:
    model, x, y = make("Linear", ROWS, torch.float32)
    other = twin(model)
    for each, options in ((model, choice), (other, {})):
        optimizer = torch.optim.SGD(each.parameters(), **{"lr": 0.25, **options})
        WAYS[way](each, nn.MSELoss(), optimizer, x, y, 3)
    assert all(map(torch.equal, model.parameters(), other.parameters()))
