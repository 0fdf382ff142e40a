"""Nothing wrong is timed: a result that is off by more than rounding stops the bench before."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import agreement
import gdcore
import growth
import lesson_sine
import lesson_versions
import minibatches
import optim
import run
import stepwise
import threads
import timing
from gdcore.lessons import LESSONS
from gdcore.lessons.lesson import Run, Settings


def too_far(function: Callable[..., Any], by: float = 1.001) -> Callable[..., Any]:
    """A loss that is too large, or a training that goes too far."""

    def wrong(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            return result * by
        if callable(result):
            return too_far(result, by)
        for parameter in args[0].parameters():
            parameter.data *= by
        return result

    return wrong


@pytest.mark.parametrize(
    ("owner", "name", "case", "contender"),
    [
        (gdcore.functional, "linear_mse_loss", "(32, 10), forward", "gdcore.functional"),
        (gdcore, "train_step", "(32, 10), train_step", "gdcore.train_step"),
        (gdcore, "fit", "(32, 10), fit", "gdcore.fit"),
        (gdcore, "fit", "legendre", "gdcore.fit"),
        (gdcore, "fit", "(256, 64)", "gdcore.fit"),
        (torch.nn.functional, "mse_loss", "linear_regression", "eager"),
    ],
)
def test_a_wrong_result_stops_the_bench_before_timing(
    tiny: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    owner: Any,
    name: str,
    case: str,
    contender: str,
) -> None:
    monkeypatch.setattr(owner, name, too_far(getattr(owner, name)))
    monkeypatch.setattr(timing, "interleave", lambda *args: pytest.fail("it was timed"))
    assert run.main(["--quick", "--case", case]) == 1
    error = capsys.readouterr().err
    assert "Stopped before timing" in error
    assert f": {contender}" in error


def test_a_wrong_optimizer_stops_the_bench(
    tiny: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(parameters: Any, lr: float, momentum: float) -> torch.optim.Optimizer:
        return gdcore.optim.SGD(parameters, lr=lr * 1.001, momentum=momentum)

    monkeypatch.setitem(optim.OPTIMIZERS, "gdcore.optim.SGD", wrong)
    assert run.main(["--quick", "--suite", "optim"]) == 1
    assert "gdcore.optim.SGD, at step 3" in capsys.readouterr().err


def test_a_wrong_contender_by_hand_stops_the_bench(
    tiny: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = lesson_sine.by_hand

    def wrong(columns: Any, y: Any, start: Any, lr: float, epochs: int) -> Any:
        return right(columns, y, start, lr * 1.001, epochs)

    monkeypatch.setattr(lesson_sine, "by_hand", wrong)
    assert run.main(["--quick", "--case", "sine_torch"]) == 1
    assert "by hand, at epoch 1" in capsys.readouterr().err


def test_a_lesson_that_disagrees_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fused version is made to train at another rate."""
    name = "deeper_gd_sgd"
    assert name in lesson_versions.names()
    lesson = LESSONS[name]
    fused = lesson.versions["fused"]

    def slower(settings: Settings) -> Run:
        return fused(replace(settings, lr=0.99 * settings.lr))

    changed = replace(lesson, versions={**lesson.versions, "fused": slower})
    monkeypatch.setitem(LESSONS, name, changed)
    with pytest.raises(agreement.DisagreementError, match="gdcore, fused"):
        lesson_versions.case(name)


def test_a_wrong_training_with_many_outputs_is_not_timed(
    tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepwise, "MANY", (300, 20))
    timing.verify(stepwise.many_outputs_case())
    monkeypatch.setattr(gdcore, "fit", too_far(gdcore.fit))
    with pytest.raises(agreement.DisagreementError, match=r"gdcore.fit, at epoch 3"):
        timing.verify(stepwise.many_outputs_case())


def test_a_result_that_depends_on_threads_is_not_timed(
    tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads.linear_case(100, 4, 1, 3)
    right = gdcore.fit

    def wrong(model: Any, *args: Any, **kwargs: Any) -> Any:
        history = right(model, *args, **kwargs)
        if torch.get_num_threads() == 1:
            model.weight.data *= 1 + 2**-20
        return history

    monkeypatch.setattr(gdcore, "fit", wrong)
    monkeypatch.setattr(threads, "THREADS", 2)
    with pytest.raises(agreement.DisagreementError, match="one thread"):
        threads.linear_case(100, 4, 1, 3)


def test_a_wrong_minibatch_epoch_is_not_timed(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever gdcore has, eager PyTorch is compared with the same steps in float64."""
    p = minibatches.Problem.random(1000, 4, seed=1)
    index = torch.arange(1000)
    batches = [rows.numpy() for rows, _ in minibatches.loader(index, index, 64)]
    expected = minibatches.expected_epoch(p, batches)
    eager = minibatches.eager(p, 64)
    eager.reset()
    expected.check(eager.outcome(eager.run()))
    monkeypatch.setattr(minibatches, "SEED", 6)
    eager.reset()
    with pytest.raises(agreement.DisagreementError):
        expected.check(eager.outcome(eager.run()))


@pytest.mark.parametrize("shuffled", [True, False])
def test_rows_that_an_epoch_leaves_out_are_noticed(
    monkeypatch: pytest.MonkeyPatch, shuffled: bool
) -> None:
    monkeypatch.setattr(minibatches, "large", lambda: minibatches.Problem.random(20_000, 16, 1))
    case = minibatches.large_case(64, shuffled)
    timing.verify(case)
    (check,) = case.checks
    came_to = check.contenders[0].outcome(None)
    p = minibatches.large()
    taken = minibatches.batches(minibatches.order(20_000, shuffled), 64)
    half = len(taken) // 2
    kinds = {
        "the first half": taken[half:],
        "the second half": taken[:half],
        "half of each": [rows[: len(rows) // 2] for rows in taken],
        "each fiftieth": [rows for i, rows in enumerate(taken) if i % 50],
    }
    for kept in kinds.values():
        without = minibatches.expected_epoch(p, kept, 1 / len(taken))
        with pytest.raises(agreement.DisagreementError):
            without.check(came_to)

    right = gdcore.fit

    def leaving_out(model: Any, loss_fn: Any, optimizer: Any, data: Any, **options: Any) -> Any:
        return right(model, loss_fn, optimizer, tuple(t[::2] for t in data), **options)

    monkeypatch.setattr(gdcore, "fit", leaving_out)
    with pytest.raises(agreement.DisagreementError, match=r"gdcore.fit, after an epoch"):
        timing.verify(case)


@pytest.mark.parametrize(
    ("owner", "name", "contender"),
    [(gdcore, "fit", "gdcore.fit"), (torch.nn.functional, "mse_loss", "eager")],
)
def test_a_wrong_point_of_a_curve_is_not_timed(
    tiny: None, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, contender: str
) -> None:
    p = minibatches.Problem.random(600, 4, seed=1)
    point = growth.Point(0, 300, 4, 2)

    def measure_all() -> list[Callable[[], growth.Timed]]:
        return [
            lambda: growth.time_point(point, growth.QUICK),
            lambda: growth.time_batch(16, p, growth.QUICK),
            lambda: growth.time_threads(1, point, growth.QUICK),
        ]

    for measure in measure_all():
        measure()
    monkeypatch.setattr(owner, name, too_far(getattr(owner, name)))
    for measure in measure_all()[: None if contender == "gdcore.fit" else 2]:
        with pytest.raises(agreement.DisagreementError, match=contender):
            measure()
