"""Two runs beside one another: what moved beyond noise, and the exit status."""

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import compare
import compare_page
import old_run
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
    assert found.row == ""
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
    old, new = noisy(1.0, 0), noisy(1.5, 1000)
    assert not any(one.regressed for one in compare.changes(old, new))
    assert of_means(old, new)["suite"].regressed
    assert of_means(old, new)["suite"].factor == pytest.approx(1 / 1.5, rel=0.1)
    assert any(one.regressed for one in compare.judged(old, new))


def test_what_no_suite_shows_by_itself_the_whole_shows() -> None:
    def of_suites(ours: float, seed: int) -> Any:
        runs = [noisy(ours, seed + 100 * number, cases=8) for number in range(12)]
        cases = [{**one, "suite": f"{at}"} for at, run in enumerate(runs) for one in run["cases"]]
        return {**runs[0], "cases": cases}

    found = of_means(of_suites(1.0, 0), of_suites(1.2, 5000))
    assert found.pop(compare.WHOLE).regressed
    assert sum(one.regressed for one in found.values()) < len(found) / 2


def uneven(seed: int) -> Any:
    """Every case with a deviation of its own, and now and then a sample that was disturbed."""
    draw = random.Random(seed)
    runs = []
    for number in range(100):
        # A case's deviation is the same in every run.
        noise = 0.1 * math.exp(random.Random(number).gauss(0, 0.7))
        run = a_run(noise=noise, rounds=3, seed=draw.random())
        for row in run["cases"][0]["rows"]:
            row["samples"] = [s * (2 if draw.random() < 0.05 else 1) for s in row["samples"]]
        runs.append(run)
    return joined(runs)


def from_process_to_process(seed: int) -> Any:
    """Every contender is a little faster or slower for as long as a process lives."""
    draw = random.Random(seed)
    runs = []
    for _ in range(100):
        run = a_run(noise=0.02, rounds=9, seed=draw.random())
        for row in run["cases"][0]["rows"]:
            factor = math.exp(draw.gauss(0, 0.03))
            row["samples"] = [s * factor for s in row["samples"]]
        runs.append(run)
    return joined(runs)


@pytest.mark.parametrize(
    "kind", [lambda seed: noisy(1.0, 100 * seed), uneven, from_process_to_process]
)
def test_whole_runs_without_a_change_hardly_ever_regress(kind: Callable[[int], Any]) -> None:
    runs = [kind(seed) for seed in range(40)]
    pairs = zip(runs[::2], runs[1::2], strict=True)
    assert sum(bool(compare.regressions(old, new)) for old, new in pairs) <= 2


def with_a_row(run: Any, name: str, seconds: float) -> Any:
    rows = run["cases"][0]["rows"]
    run["cases"][0]["rows"] = [
        *rows,
        {"contender": name, "samples": [seconds * s for s in rows[0]["samples"]]},
    ]
    return run


def test_every_row_of_gdcores_is_judged_and_none_is_a_peer() -> None:
    old, new = (
        with_a_row(a_run(1.0, {"eager": 10.0}), "gdcore, alone", factor) for factor in (1.0, 2.0)
    )
    first, second = compare.changes(old, new)
    assert not first.moved
    assert second.row == "gdcore, alone"
    assert second.regressed
    assert "suite, case, gdcore, alone" in "\n".join(compare_page.text(old, new))
    # As a peer it would say that the others have lost.
    assert not any(one.regressed for one in compare.changes(new, old))


def test_what_is_lost_once_and_not_again_is_no_regression() -> None:
    old, new, again = a_run(1.0), a_run(2.0), a_run(1.01)
    key = ("suite", "case", "")
    assert compare.regressions(old, new) == compare.regressions(old, new, new) == {key}
    assert compare.regressions(old, new, again) == set()
    assert "not when measured again" in "\n".join(compare_page.text(old, new, again))
    assert "**regression**" in "\n".join(compare_page.text(old, new, new))


def test_the_cases_of_a_suite_that_lost_are_measured_again() -> None:
    old, new = noisy(1.0, 0), noisy(1.5, 1000)
    assert compare.suspects(old, new) == {("suite", f"case {i}") for i in range(25)}
    assert compare.suspects(old, old) == set()


def test_the_noise_is_given_in_what_it_is_compared_with() -> None:
    """A change that is beyond it stands outside the two bounds."""
    old, new = a_run(1.0, noise=0.2, rounds=3), a_run(10.0, noise=0.2, rounds=3)
    assert change(old, new).moved
    (line,) = [one for one in compare_page.text(old, new) if one.startswith("| suite")]
    lost, bounds = (cell.strip() for cell in line.split("|")[4:6])
    assert float(lost.split()[0]) < float(bounds.split(" %")[0]) < 0


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
    assert "- fewer than 3 rounds: all 1 of suite" in compare_page.text(old, new)


def test_what_is_not_judged_is_said() -> None:
    old, new = a_run(), a_run()
    case = old["cases"][0]
    alone = {"suite": "suite", "name": "alone", "rows": case["rows"][:1]}
    old["cases"] += [{**case, "name": "gone"}, {**case, "suite": "lost suite"}, alone]
    new["cases"] += [{**case, "name": "fresh"}, alone]
    text = compare_page.text(old, new)
    for line in (
        "- times by themselves; accuracy, memory and the busy neighbour",
        "- only in the old run: suite, gone; all 1 of lost suite",
        "- only in the new run: suite, fresh",
        "- no peer in both runs: suite, alone",
    ):
        assert line in text
    assert any(line.startswith("1 cases judged, with their means") for line in text)


def test_another_machine_is_warned_of() -> None:
    old, new = (
        {**a_run(), "machine": {"cpu": "a", "torch_threads": threads}} for threads in (2, 4)
    )
    text = "\n".join(compare_page.text(old, new))
    assert "**Another machine:** torch_threads was 2, now 4" in text
    assert "cpu was" not in text
    assert "Another machine" not in "\n".join(compare_page.text(old, old))


BROKEN: dict[str, tuple[str, str]] = {
    "another format": (json.dumps({**a_run(), "format": 1}), "format: expected 2"),
    "a quick one": (json.dumps({**a_run(), "quick": True}), "quick: expected False"),
    "no JSON": ("nothing", "expected a file that --json has written"),
    "a list": ("[1, 2]", "got a list"),
    "no cases": (json.dumps({"format": 2, "quick": False}), "cases: expected"),
    "no rows": (json.dumps({**a_run(), "cases": [{"suite": "a", "name": "b"}]}), "cases: expected"),
    "uneven rounds": (
        json.dumps(
            {
                **a_run(),
                "cases": [
                    {
                        "suite": "a",
                        "name": "b",
                        "rows": [
                            {"contender": "gdcore", "samples": [1.0]},
                            {"contender": "eager", "samples": [1.0, 2.0]},
                        ],
                    }
                ],
            }
        ),
        "cases: expected",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_no_such_run_are_refused(name: str, tmp_path: Path) -> None:
    text, message = BROKEN[name]
    file = tmp_path / "old.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        old_run.read(file, format=2, quick=False)


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
    monkeypatch.setattr(run, "measured_again", lambda old, found, planned, quick: found)
    assert run.main([*arguments, "--compare", str(changed)]) == status
    text = capsys.readouterr().out
    assert ("**regression**" in text) == bool(status)
    assert f"{status} of them lost more than 10 %" in text
