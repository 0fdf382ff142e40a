"""A version whose arithmetic is off, as a wrong factor in a kernel would make it, is found out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

import gdcore.functional
from gdcore.lessons import (
    deeper_gd,
    lab,
    learning_rate,
    legendre,
    linear_regression,
    minibatch,
    multivariate,
    sine,
    sine_nn,
    sine_rmsprop,
    study_hours,
)
from gdcore.lessons.lesson import Settings

from .conftest import Command


def scaled_rate(train: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """`gdcore.fit` or `gdcore.train_step` with every gradient off by a factor."""

    def wrong(model: object, loss_fn: object, optimizer: Any, *args: Any, **options: Any) -> Any:
        for group in optimizer.param_groups:
            group["lr"] *= factor
        return train(model, loss_fn, optimizer, *args, **options)

    return wrong


def scaled_gradient(factor: float) -> Callable[..., Tensor]:
    """`linear_mse_loss` with the right loss, and its gradient off by a factor."""

    def wrong(*args: Any, **options: Any) -> Tensor:
        loss = gdcore.functional.linear_mse_loss(*args, **options)
        return loss + (factor - 1) * (loss - loss.detach())

    return wrong


WRONG: list[tuple[str, Any, str, Callable[..., Any]]] = [
    ("deeper_gd_manual", deeper_gd, "fit", scaled_rate(gdcore.fit, 1.001)),
    ("deeper_gd_sgd", deeper_gd, "fit", scaled_rate(gdcore.fit, 1.001)),
    ("study_hours_errors", study_hours, "linear_mse_loss", scaled_gradient(1.001)),
    ("learning_rate", learning_rate, "fit", scaled_rate(gdcore.fit, 1.001)),
    ("linear_regression", linear_regression, "fit", scaled_rate(gdcore.fit, 1.001)),
    ("lab_raw", linear_regression, "fit", scaled_rate(gdcore.fit, 1.001)),
    ("lab_module", lab, "linear_mse_loss", scaled_gradient(1.001)),
    ("sine_numpy", sine, "fit", scaled_rate(gdcore.fit, 1.001)),
    ("sine_torch", sine, "fit", scaled_rate(gdcore.fit, 1.001)),
    ("legendre", legendre, "fit", scaled_rate(gdcore.fit, 1.001)),
    ("sine_nn", sine_nn, "fit", scaled_rate(gdcore.fit, 1.001)),
    ("sine_rmsprop", sine_rmsprop, "fit", scaled_rate(gdcore.fit, 1.001)),
    ("multivariate_separate", multivariate, "fit", scaled_rate(gdcore.fit, 1.01)),
    ("multivariate_matrix", multivariate, "fit", scaled_rate(gdcore.fit, 1.01)),
    ("multivariate_nn", multivariate, "fit", scaled_rate(gdcore.fit, 1.01)),
    ("nn_linear", linear_regression, "fit", scaled_rate(gdcore.fit, 1.001)),
    ("minibatch", minibatch, "train_step", scaled_rate(gdcore.train_step, 1.001)),
]


@pytest.mark.parametrize(("name", "module", "part", "wrong"), WRONG, ids=[w[0] for w in WRONG])
def test_a_wrong_factor_ends_with_status_1(
    monkeypatch: pytest.MonkeyPatch,
    lessons: Command,
    name: str,
    module: object,
    part: str,
    wrong: Callable[..., Any],
) -> None:
    monkeypatch.setattr(module, part, wrong)
    said = lessons(name, "--backend", "fused")
    assert said.status == 1
    assert f"DISAGREES: {name}, fused, " in said.out
    assert "expected: " in said.out
    assert "got: " in said.out


@pytest.mark.parametrize("name", ["linear_regression", "sine_torch", "multivariate_matrix"])
def test_a_factor_of_1e_6_is_seen_where_versions_are_compared(
    monkeypatch: pytest.MonkeyPatch, lessons: Command, name: str
) -> None:
    options = (name, "--backend", "fused", "--seed", "3", "--epochs", "200")
    assert lessons(*options).status == 0
    for module in (linear_regression, sine, multivariate):
        monkeypatch.setattr(module, "fit", scaled_rate(gdcore.fit, 1 + 1e-6))
    said = lessons(*options)
    assert said.status == 1
    assert f"DISAGREES: {name}, fused, fused against autograd in float64" in said.out


def test_a_wrong_update_by_hand_is_seen_step_by_step(
    monkeypatch: pytest.MonkeyPatch, lessons: Command
) -> None:
    options = ("sine_rmsprop", "--epochs", "20", "--backend", "manual")
    assert lessons(*options).status == 0

    def wrong(settings: Settings) -> sine_rmsprop.Training:
        return sine_rmsprop.manual(replace(settings, lr=settings.lr * (1 + 1e-5)))

    monkeypatch.setitem(sine_rmsprop.TRAININGS, "manual", wrong)
    said = lessons(*options)
    assert said.status == 1
    assert "manual against autograd in float64, step 0: weight and bias" in said.out
