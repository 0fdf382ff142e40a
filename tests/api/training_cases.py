"""The models that train natively, with data, and the ways to train them."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import gdcore

Case = tuple[nn.Module, Tensor, Tensor]


def _linear(
    build: Callable[[], nn.Module], columns: int, outputs: int, flat: bool = False
) -> Callable[[int, torch.dtype], Case]:
    def make(rows: int, dtype: torch.dtype) -> Case:
        target = torch.randn(rows * outputs if flat else (rows, outputs), dtype=dtype)
        return build().to(dtype), torch.randn(rows, columns, dtype=dtype), target

    return make


def _of_one_variable(build: Callable[[], nn.Module]) -> Callable[[int, torch.dtype], Case]:
    def make(rows: int, dtype: torch.dtype) -> Case:
        model = build().to(dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.uniform_(-0.7, 0.7)  # also moves parameters that start at zero
        x = 2 * torch.rand(rows, dtype=dtype) - 1
        return model, x, torch.randn(rows, dtype=dtype)

    return make


CASES: dict[str, Callable[[int, torch.dtype], Case]] = {
    "Linear": _linear(lambda: nn.Linear(3, 2), 3, 2),
    "Linear without bias": _linear(lambda: nn.Linear(2, 1, bias=False), 2, 1),
    "Linear of 17 columns": _linear(lambda: nn.Linear(17, 1), 17, 1),
    "Linear of 9 outputs": _linear(lambda: nn.Linear(2, 9), 2, 9),
    "Flatten(0, 1)": _linear(lambda: nn.Sequential(nn.Linear(3, 1), nn.Flatten(0, 1)), 3, 1, True),
    "Flatten(0, -1) of 3 outputs": _linear(
        lambda: nn.Sequential(nn.Linear(2, 3), nn.Flatten(0, -1)), 2, 3, True
    ),
    "Flatten()": _linear(lambda: nn.Sequential(nn.Linear(3, 2), nn.Flatten()), 3, 2),
    "LinearRegression": _linear(gdcore.nn.LinearRegression, 1, 1),
    "PolynomialRegression": _of_one_variable(lambda: gdcore.nn.PolynomialRegression(3)),
    "LegendreRegression": _of_one_variable(gdcore.nn.LegendreRegression),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "dampening": {"momentum": 0.9, "dampening": 0.4},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "weight decay": {"weight_decay": 0.1},
    "maximize": {"maximize": True},
    "all": {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1, "maximize": True},
}


def make(name: str, rows: int = 20, dtype: torch.dtype = torch.float64) -> Case:
    return CASES[name](rows, dtype)


def twin(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model)


def line(rows: int = 6, dtype: torch.dtype = torch.float32) -> Case:
    """The smallest case: y = 2 x."""
    x = torch.linspace(-1, 1, rows, dtype=dtype).unsqueeze(-1)
    return nn.Linear(1, 1, dtype=dtype), x, 2 * x
