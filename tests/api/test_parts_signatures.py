"""The parts take what their namesakes in the installed torch take, under the same names."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn import Parameter

import gdcore

from .optimizers import NAMES

# What torch has deprecated for `reduction` since 0.4.1.
DEPRECATED = {"size_average", "reduce"}
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


def test_mse_loss_takes_what_is_not_deprecated() -> None:
    ours, theirs = set(arguments(gdcore.functional.mse_loss)), set(arguments(F.mse_loss))
    assert theirs - DEPRECATED <= ours
    assert ours <= theirs
    assert set(arguments(torch.nn.MSELoss)) - DEPRECATED <= set(arguments(gdcore.nn.MSELoss))
    for deprecated in DEPRECATED:
        with pytest.raises(TypeError, match=deprecated):
            gdcore.functional.mse_loss(torch.ones(2), torch.ones(2), **{deprecated: True})
