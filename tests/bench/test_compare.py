"""Two runs beside one another: what moved beyond noise, and the exit status."""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import compare
import run


def a_run(
    ours: float = 1.0,
    peers: dict[str, float] | None = None,
    noise: float = 0.02,
    rounds: int = 15,
    seed: float | None = None,
) -> Any:
    """A case with so many seconds for each contender, every sample off by some noise."""
    draw = random.Random(ours if seed is None else seed)
    named = {"gdcore.fit": ours, **(peers or {"eager": 10.0, "NumPy": 4.0, "JAX": 2.0})}
    rows = [
        {
            "contender": name,
            "samples": [seconds * math.exp(draw.gauss(0, noise)) for _ in range(rounds)],
        }
        for name, seconds in named.items()
    ]
    return {
        "format": 2,
        "quick": False,
        "cases": [{"suite": "suite", "name": "case", "rows": rows}],
    }


def joined(runs: Sequence[Any], suite: str = "suite") -> Any:
    """The cases of several runs in one, as cases of one suite."""
    cases = [
        {**run["cases"][0], "suite": suite, "name": f"case {index}"}
        for index, run in enumerate(runs)
    ]
    return {**runs[0], "cases": cases}


def noisy(ours: float, first_seed: int, cases: int = 25) -> Any:
    seeds = range(first_seed, first_seed + cases)
    return joined([a_run(ours, noise=0.2, rounds=3, seed=seed) for seed in seeds])


def of_means(old: Any, new: Any) -> dict[str, compare.Change]:
    return {one.suite: one for one in compare.means(compare.changes(old, new))}


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


@pytest.mark.parametrize("rounds", [3, 4, 15])
def test_an_unchanged_run_is_hardly_ever_a_regression(rounds: int) -> None:
    """A noise of 10 %, 2 000 times: normal noise exceeds three standard errors once in 740."""
    runs = [a_run(noise=0.1, rounds=rounds, seed=seed) for seed in range(4000)]
    pairs = zip(runs[::2], runs[1::2], strict=True)
    assert sum(change(old, new).regressed for old, new in pairs) <= 20


@pytest.mark.parametrize("rounds", [3, 4])
def test_three_rounds_that_are_twice_as_slow_are_a_regression(rounds: int) -> None:
    assert change(a_run(1.0, rounds=rounds), a_run(2.0, rounds=rounds)).regressed


def test_what_no_case_shows_by_itself_its_suite_shows() -> None:
    old, new = noisy(1.0, 0), noisy(1.3, 1000)
    assert not any(one.regressed for one in compare.changes(old, new))
    assert of_means(old, new)["suite"].regressed
    assert of_means(old, new)["suite"].factor == pytest.approx(1 / 1.3, rel=0.1)
    assert any(one.regressed for one in compare.judged(old, new))


def test_what_no_suite_shows_by_itself_the_whole_shows() -> None:
    def of_suites(ours: float, seed: int) -> Any:
        runs = [noisy(ours, seed + 100 * number, cases=8) for number in range(12)]
        cases = [{**one, "suite": f"{at}"} for at, run in enumerate(runs) for one in run["cases"]]
        return {**runs[0], "cases": cases}

    found = of_means(of_suites(1.0, 0), of_suites(1.2, 5000))
    assert found.pop(compare.WHOLE).regressed
    assert sum(one.regressed for one in found.values()) < len(found) / 2


def test_unchanged_suites_are_hardly_ever_a_regression() -> None:
    pairs = [(noisy(1.0, 100 * pair), noisy(1.0, 100 * pair + 50)) for pair in range(60)]
    assert sum(one.regressed for old, new in pairs for one in of_means(old, new).values()) <= 1


def test_a_case_alone_has_no_mean_beside_it() -> None:
    assert of_means(a_run(), a_run()) == {}


def test_few_rounds_that_agree_by_chance_have_the_usual_deviation() -> None:
    """Three rounds without any noise among cases with 20 %."""
    calm, others = a_run(noise=0.0, rounds=3), [a_run(noise=0.2, seed=s) for s in range(20)]
    alone, among = joined([calm]), joined([calm, *others])
    assert compare.changes(among, among)[0].error > 4 * compare.changes(alone, alone)[0].error


def test_two_rounds_are_too_few_to_judge() -> None:
    old, new = a_run(1.0), a_run(5.0, rounds=2)
    assert compare.changes(old, new) == []
    assert "- fewer than 3 rounds: all 1 of suite" in compare.text(old, new)


def test_what_is_not_judged_is_said() -> None:
    old, new = a_run(), a_run()
    case = old["cases"][0]
    alone = {"suite": "suite", "name": "alone", "rows": case["rows"][:1]}
    old["cases"] += [{**case, "name": "gone"}, {**case, "suite": "lost suite"}, alone]
    new["cases"] += [{**case, "name": "fresh"}, alone]
    text = compare.text(old, new)
    for line in (
        "- times by themselves; accuracy, memory and the busy neighbour",
        "- only in the old run: suite, gone; all 1 of lost suite",
        "- only in the new run: suite, fresh",
        "- no peer in both runs: suite, alone",
    ):
        assert line in text
    judged = "1 cases judged, and 0 means: 0 moved beyond noise, 0 of them lost more than 10 %."
    assert judged in text


def test_another_machine_is_warned_of() -> None:
    old, new = (
        {**a_run(), "machine": {"cpu": "a", "torch_threads": threads}} for threads in (2, 4)
    )
    text = "\n".join(compare.text(old, new))
    assert "**Another machine:** torch_threads was 2, now 4" in text
    assert "cpu was" not in text
    assert "Another machine" not in "\n".join(compare.text(old, old))


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
