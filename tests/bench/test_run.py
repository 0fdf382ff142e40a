"""A whole run gives a page, pictures and every sample. No assertion is on speed."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import goals
import linear_mse
import memory
import pictures
import run
import timing
from agreement import DisagreementError

from .conftest import TINY


def test_a_quick_run_gives_a_page_pictures_and_every_sample(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    suites = ["lessons", "stepwise", "linear_mse", "optim", "small_models", "neighbour", "memory"]
    chosen = [word for suite in suites for word in ("--suite", suite)]
    assert run.main(["--quick", *chosen, "--json", str(file), "--out", str(tmp_path)]) == 0
    found = json.loads(file.read_text())
    assert json.loads((tmp_path / "results.json").read_text()) == found

    assert {case["suite"] for case in found["cases"]} == set(suites) - {"neighbour", "memory"}
    for case in found["cases"]:
        assert case["rows"][0]["contender"].startswith("gdcore")
        assert case["rows"][0]["ratio"]["median"] == 1
        for row in case["rows"]:
            assert len(row["samples"]) == case["rounds"] >= 2
            for spread in (row["seconds"], row["ratio"]):
                assert 0 < spread["q25"] <= spread["median"] <= spread["q75"]
    cubic = next(case for case in found["cases"] if case["name"].startswith("cubic"))
    assert cubic["missing"] == {"JAX": "not installed"}
    assert len(cubic["limit"]["samples"]) == cubic["rounds"]
    assert found["limits"]["read"]["median"] > 1e7
    assert found["machine"]["torch"] == torch.__version__

    met = {goal["what"]: goal["met"] for goal in found["goals"]}
    assert met["(32, 10), train_step"] in (True, False)
    assert met["fit (1000000, 64) adds"] is True
    assert met["(1000000, 64), train_step: eager"] is None  # not among the tiny sizes
    assert met["cubic, 2000 points: JAX"] is None  # not installed

    page = (tmp_path / "page.md").read_text()
    text = capsys.readouterr().out
    for words in ("Limits of this machine", "(32, 10), fit", "Faster than gdcore", "## Goals"):
        assert words in text
        assert words in page
    for picture in ("ratios.png", "shares.png"):
        assert (tmp_path / picture).stat().st_size > 10_000
        assert f"({picture})" in page


def test_every_kind_of_contender_takes_part(tiny: None) -> None:
    planned = {one.name: one for one in run.plan(None, "", quick=False)}
    for name in ("linear_regression", "sine_torch", "legendre", "(32, 10), train_step"):
        names = " / ".join(contender.name for contender in planned[name].build().contenders)
        for kind in ("gdcore", "eager", "foreach", "fused", "by hand", "NumPy"):
            assert kind in names


def test_a_jax_scan_comes_to_the_same() -> None:
    """In a process of its own: a process that has imported JAX warns of every fork."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("the bench extra is not installed")
    program = """
import stepwise, timing
stepwise.CURVE_EPOCHS = 20
for build in (stepwise.cubic_case, stepwise.legendre_case):
    case = build()
    assert case.contenders[-1].name == "JAX" and not case.missing
    first, _ = timing.verify(case)
    assert first["JAX"] > 0
"""
    folder = str(Path(run.__file__).parent)
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, timeout=300)


def test_goals_name_cases_that_exist(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    planned = {(one.suite, one.name) for one in run.plan(None, "", quick=False)}
    for goal in goals.GOALS:
        if goal.measure is not None:
            assert any(goal.wants(*one) for one in planned), goal.what
        else:
            assert goal.suite in run.TABLES
    for one in run.plan(["goals"], "", quick=False):
        assert goals.wanted(one.suite, one.name)


def test_the_script_runs_from_any_directory(tmp_path: Path) -> None:
    command = [sys.executable, run.__file__, "--list", "--suite", "linear_mse"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3 * len(linear_mse.EPOCHS)
    assert "linear_mse: (1000000, 64), fit" in done.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--suite", "lesson"],
        ["--json", "/nowhere/at/all.json"],
        ["--compare", "/nowhere/at/all.json"],
        ["--case", "no such"],
    ],
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


def test_the_goal_for_memory_is_on_the_worst_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which fits with compressing: `auto` does so at 300 epochs, not at 3."""
    assert memory.LONG_FIT in memory.contenders(quick=False)
    added = {memory.FIT: 3.0, memory.LONG_FIT: 40.0}
    monkeypatch.setattr(memory, "measured", lambda name, n, d: added.get(name, 1.0))
    results = goals.results([], [memory.table(quick=False)])
    found = {result.goal.what: (result.measured, result.met) for result in results}
    assert found["fit (1000000, 64) adds"] == (40.0, False)
    assert found["compress (1000000, 64) adds"] == (1.0, True)


def test_the_example_of_a_new_case_runs_as_written() -> None:
    page = Path(run.__file__).with_name("README.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    module: dict[str, Any] = {}
    exec(program, module)
    (planned,) = module["cases"](False)
    found = timing.measure(planned, TINY)
    assert [row.contender for row in found.rows] == ["gdcore", "eager"]
    assert found.bound is not None

    module["linear_mse_loss"] = lambda *args: torch.tensor(0.5)
    with pytest.raises(DisagreementError, match="gdcore, after one call"):
        timing.measure(planned, TINY)


def test_a_case_without_a_peer_has_no_row_in_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def case(name: str, peer: str) -> timing.Measured:
        spread = timing.Spread(2.0, 1.0, 3.0)
        rows = [timing.Row(who, [1.0, 1.0], spread, 1) for who in ("gdcore", peer)]
        return timing.Measured("suite", name, "call", 1, rows)

    drawn: list[str] = []
    monkeypatch.setattr(
        pictures, "name_cases", lambda axes, measured: drawn.extend(m.name for m in measured)
    )
    pictures.save([case("a", "eager"), case("b", "one thread")], tmp_path)
    assert drawn == ["a"]
