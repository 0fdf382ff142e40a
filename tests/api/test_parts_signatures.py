"""The parts take what their namesakes in the installed torch take, under the same names."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn import Parameter

import gdcore

from .optimizers import NAMES

# Arguments of a namesake with values that are not the default; an argument that a later torch adds
# is missed here, and must be thought of.
VALUES: dict[str, Any] = {
    "lr": 0.5,
    "momentum": 0.5,
    "dampening": 0.25,
    "weight_decay": 0.125,
    "nesterov": True,
    "maximize": True,
    "foreach": True,
    "fused": True,
    "differentiable": True,
    "capturable": True,
    "alpha": 0.5,
    "eps": 1e-3,
    "centered": True,
    "betas": (0.5, 0.75),
    "amsgrad": True,
    "decoupled_weight_decay": True,
}


def arguments(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "params"]


@pytest.mark.usefixtures("device_of_updates")
@pytest.mark.parametrize("name", NAMES)
def test_optimizers_take_every_argument_in_its_place(name: str) -> None:
    own, namesake = getattr(gdcore.optim, name), getattr(torch.optim, name)
    assert inspect.signature(own) == inspect.signature(namesake)
    for argument in arguments(namesake):
        options = {argument: VALUES[argument]}
        if argument == "nesterov":
            options["momentum"] = 0.5
        groups = [kind([Parameter(torch.ones(2))], **options) for kind in (own, namesake)]
        ours, theirs = (optimizer.param_groups[0] for optimizer in groups)
        assert {**ours, "params": None} == {**theirs, "params": None}
        assert ours[argument] == VALUES[argument]


@pytest.mark.parametrize("name", NAMES)
def test_methods_have_the_signatures_of_torchs(name: str) -> None:
    own, namesake = getattr(gdcore.optim, name), getattr(torch.optim, name)
    for method in ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict"):
        assert arguments(getattr(own, method)) == arguments(getattr(namesake, method))


def test_mse_loss_takes_every_argument() -> None:
    assert set(arguments(gdcore.functional.mse_loss)) == set(arguments(F.mse_loss))
    assert set(arguments(gdcore.nn.MSELoss)) == set(arguments(torch.nn.MSELoss))
    assert issubclass(gdcore.nn.MSELoss, torch.nn.MSELoss)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("size_average", [None, True, False])
@pytest.mark.parametrize("reduce", [None, True, False])
def test_what_is_deprecated_for_reduction(size_average: bool | None, reduce: bool | None) -> None:
    options = {"size_average": size_average, "reduce": reduce}
    input, target = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])
    found = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for library, module in (
            (gdcore.functional.mse_loss, gdcore.nn.MSELoss),
            (F.mse_loss, torch.nn.MSELoss),
        ):
            loss = module(**options)
            own = library(input, target, **options), loss(input, target)
            found.append((*map(torch.Tensor.tolist, own), loss.reduction))
    assert found[0] == found[1]
    messages = [str(warning.message) for warning in warned]
    assert len(messages) == (0 if size_average is reduce is None else 4)
    assert len(set(messages)) <= 1
