"""The bench measures what it says, and times nothing that is wrong. No assertion is on speed."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import agreement
import gdcore
import goals
import lesson_sine
import lesson_versions
import lessons
import linear_mse
import memory
import optim
import run
import small_models
import timing
from gdcore.lessons import LESSONS
from gdcore.lessons.lesson import Run, Settings
from linear import Problem
from timing import Effort, Measured, Row, Spread

SCRIPT = Path(run.__file__)
TINY = Effort(sample_seconds=0.0, case_seconds=0.0, least_rounds=2, most_rounds=2)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every suite with little work, measured twice."""
    monkeypatch.setattr(run, "QUICK", TINY)
    monkeypatch.setattr(memory, "QUICK", TINY)
    monkeypatch.setattr(lessons, "EPOCHS", 30)
    monkeypatch.setattr(lesson_versions, "names", lambda: ["deeper_gd_sgd"])
    monkeypatch.setattr(linear_mse, "EPOCHS", {(3, 1): 50, (32, 10): 50, (5000, 3): 20})
    monkeypatch.setattr(optim, "SIZES", {"2 tensors": [1000, 3000]})
    monkeypatch.setattr(small_models, "EPOCHS", 30)


def test_all_suites_give_a_report_and_json(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    assert run.main(["--quick", "--json", str(file)]) == 0
    found = json.loads(file.read_text())

    suites = {case["suite"] for case in found["cases"]}
    assert suites == {"lessons", "linear_mse", "loss_steps", "optim", "small_models"}
    for case in found["cases"]:
        assert case["rows"][0]["contender"].startswith("gdcore")
        assert case["rows"][0]["ratio"]["median"] == 1
        assert case["rounds"] >= 2
        for row in case["rows"]:
            for spread in (row["seconds"], row["ratio"]):
                assert 0 < spread["q25"] <= spread["median"] <= spread["q75"]
    assert found["bandwidth"]["bytes_per_second"] > 1e8
    assert found["machine"]["torch"] == torch.__version__
    assert found["machine"]["gdcore_instruction_set"] in ("baseline", "avx2", "avx512")
    assert len(found["small_models"]) == 4

    met = {goal["what"]: goal["met"] for goal in found["goals"]}
    assert met["(32, 10), train_step"] in (True, False)
    assert met["(1000000, 64), train_step against eager"] is None  # not among the tiny sizes

    text = capsys.readouterr().out
    for words in ("read bandwidth", "(32, 10), fit", "Faster than gdcore", "Goals"):
        assert words in text


def test_every_kind_of_contender_takes_part(tiny: None) -> None:
    planned = {one.name: one for one in run.plan(None, "", quick=False)}
    for name in ("linear_regression", "sine_torch", "legendre", "(32, 10), train_step"):
        names = " / ".join(contender.name for contender in planned[name].build().contenders)
        for kind in ("gdcore", "foreach=True", "fused=True", "no_grad, by hand", "NumPy"):
            assert kind in names


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
        (torch.nn.functional, "mse_loss", "linear_regression", "nn + SGD loop"),
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
    assert "no_grad, by hand, at epoch 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("loss", "values"),
    [(1.1, [1.0, 2.0]), (1.0, [1.0, 2.1]), (math.nan, [1.0, 2.0]), (1.0, [math.nan, 2.0])],
)
def test_expected_refuses_what_is_further_away(loss: float, values: list[float]) -> None:
    expected = agreement.Expected(1.0, 0.01, np.array([1.0, 2.0]), np.array([0.01, 0.01]))
    expected.check(agreement.outcome(1.005, [1.005, 1.995]))
    with pytest.raises(agreement.DisagreementError):
        expected.check(agreement.outcome(loss, values))


def test_expected_gradient_is_autograds_in_float64() -> None:
    p = Problem.random(50, 3, seed=1)
    expected = agreement.expected_gradient(p.affine(), p.targets(), p.flat_start(), mean=True)
    model = p.model().double()
    loss = torch.nn.functional.mse_loss(model(p.x.double()), p.y.double())
    found = torch.autograd.grad(loss, list(model.parameters()))
    grads = np.concatenate([grad.numpy().ravel() for grad in found])
    # Sums of 50 float64 terms of about 1, against a bound for float32.
    np.testing.assert_allclose(expected.values, grads, rtol=0, atol=1e-13)
    assert expected.loss == pytest.approx(loss.item(), rel=1e-14)
    assert 1e-8 < expected.errors.max() < 1e-4


def test_an_unstable_rate_has_no_expected_descent() -> None:
    p = replace(Problem.random(50, 3, seed=1), lr=3.0)
    arrays = (p.affine(), p.targets(), p.flat_start())
    with pytest.raises(ValueError, match="may not be stable at step 1"):
        agreement.expected_descent(*arrays, lr=p.lr, mean=True, steps=[1])


def test_contenders_take_turns() -> None:
    turns: list[str] = []
    runs = [lambda name=name: turns.append(name) for name in "abc"]
    effort = replace(TINY, least_rounds=3, most_rounds=3)
    samples, calls = timing.interleave(runs, effort, known=[1.0, 1.0, 1.0])
    assert calls == [1, 1, 1]
    assert [len(taken) for taken in samples] == [3, 3, 3]
    assert "".join(turns) == "abcbcacab"


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


def measured(read_bytes: int, share: float | None = None) -> Measured:
    spread = Spread(0.1, 0.1, 0.1)
    by_round = None if share is None else Spread(share, share, share)
    row = Row("gdcore.fit", spread, Spread(1, 1, 1), 1, by_round)
    return Measured("linear_mse", "a case", "epoch", 1, 2, read_bytes, [row], None, "")


def test_share_of_bandwidth_is_of_the_read_in_the_same_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "last_level_cache", lambda: 10**6)
    one = measured(10**8)  # 1e9 bytes per second
    assert memory.share_of_bandwidth(one, one.rows[0], 2e9) == pytest.approx(0.5)
    one = measured(10**8, share=0.25)
    assert memory.share_of_bandwidth(one, one.rows[0], 2e9) == pytest.approx(0.25)
    one = measured(10**6)
    assert memory.share_of_bandwidth(one, one.rows[0], 2e9) is None


def test_goals_name_cases_that_exist() -> None:
    planned = {(one.suite, one.name) for one in run.plan(None, "", quick=False)}
    suites = {suite for suite, _ in planned}
    for goal in goals.GOALS:
        assert goal.suite in suites if goal.case is None else (goal.suite, goal.case) in planned
    for one in run.plan(["goals"], "", quick=False):
        assert goals.wanted(one.suite, one.name)


def test_the_script_runs_from_any_directory(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--list", "--suite", "linear_mse"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3 * len(linear_mse.EPOCHS)
    assert "linear_mse: (1000000, 64), fit" in done.stdout


@pytest.mark.parametrize(
    "options", [["--suite", "lesson"], ["--json", "/nowhere/at/all.json"], ["--case", "no such"]]
)
def test_wrong_options_end_with_status_2(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = run.main(options)
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    assert status == 2
    assert capsys.readouterr().err
