"""Two runs beside one another: what moved beyond noise, and the exit status."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

import compare
import run


def a_run(ours: float = 1.0, peers: dict[str, float] | None = None, noise: float = 0.02) -> Any:
    """A case with so many seconds for each contender, every sample off by some noise."""
    draw = random.Random(ours)
    named = {"gdcore.fit": ours, **(peers or {"eager": 10.0, "NumPy": 4.0, "JAX": 2.0})}
    rows = [
        {
            "contender": name,
            "samples": [seconds * math.exp(draw.gauss(0, noise)) for _ in range(15)],
        }
        for name, seconds in named.items()
    ]
    return {
        "format": 2,
        "quick": False,
        "cases": [{"suite": "suite", "name": "case", "rows": rows}],
    }


def change(old: Any, new: Any) -> compare.Change:
    (found,) = compare.changes(old, new)
    return found


def test_the_same_again_has_not_moved() -> None:
    found = change(a_run(1.0), a_run(1.001))
    assert not found.moved
    assert found.factor == pytest.approx(1, abs=0.03)


def test_twice_as_slow_is_a_regression_and_twice_as_fast_is_none() -> None:
    slower, faster = change(a_run(1.0), a_run(2.0)), change(a_run(1.0), a_run(0.5))
    assert slower.regressed
    assert slower.factor == pytest.approx(0.5, rel=0.05)
    assert faster.moved
    assert not faster.regressed


def test_a_loss_within_ten_percent_has_moved_but_is_no_regression() -> None:
    found = change(a_run(1.0, noise=0.001), a_run(1.08, noise=0.001))
    assert found.moved
    assert not found.regressed


def test_a_loss_within_the_noise_has_not_moved() -> None:
    assert not change(a_run(1.0, noise=0.5), a_run(1.2, noise=0.5)).moved


def test_a_slower_machine_moves_no_ratio() -> None:
    slower = a_run(3.0, {"eager": 30.0, "NumPy": 12.0, "JAX": 6.0})
    assert not change(a_run(1.0), slower).moved


def test_one_contender_that_moved_by_itself_moves_no_case() -> None:
    assert not change(a_run(1.0), a_run(1.001, {"eager": 2.0, "NumPy": 4.0, "JAX": 2.0})).moved


def test_cases_and_contenders_that_one_run_lacks_are_left_out() -> None:
    assert compare.changes({**a_run(), "cases": []}, a_run()) == []
    assert compare.changes(a_run(1.0, {"eager": 10.0}), a_run(1.0, {"NumPy": 4.0})) == []


@pytest.mark.parametrize(("key", "value"), [("format", 1), ("quick", True)])
def test_runs_that_were_measured_otherwise_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{key}: expected"):
        compare.check({**a_run(), key: value}, format=2, quick=False)


def test_an_old_format_ends_with_status_2_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run.limits, "measure_machine", lambda effort: pytest.fail("measured"))
    file = tmp_path / "old.json"
    file.write_text("{}")
    assert run.main(["--case", "(32, 10), fit", "--compare", str(file)]) == 2
    assert "--compare: format: expected 2" in capsys.readouterr().err


@pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (5.0, 1)])
def test_the_exit_status_tells_of_a_regression(
    tiny: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    factor: float,
    status: int,
) -> None:
    """The run itself, and one in which every contender took so many times as long."""
    monkeypatch.setattr(run.limits, "measure_machine", lambda effort: [])
    file, changed = tmp_path / "old.json", tmp_path / "changed.json"
    arguments = ["--quick", "--case", "(32, 10), fit", "--out", str(tmp_path)]
    assert run.main([*arguments, "--json", str(file)]) == 0
    old = json.loads(file.read_text())
    recorded = run.record.as_json
    monkeypatch.setattr(
        run.record, "as_json", lambda *args, **options: {**recorded(*args, **options), **same}
    )
    same = {"cases": json.loads(json.dumps(old["cases"]))}
    for row in old["cases"][0]["rows"][1:]:
        row["samples"] = [factor * seconds for seconds in row["samples"]]
    # Two rounds are too few for a spread that means something.
    for found in (old["cases"][0], same["cases"][0]):
        for row in found["rows"]:
            row["samples"] = [row["samples"][0]] * 9
    changed.write_text(json.dumps(old))
    assert run.main([*arguments, "--compare", str(changed)]) == status
    text = capsys.readouterr().out
    assert ("**regression**" in text) == bool(status)
    assert f"{status} of them lost more than 10 %" in text
