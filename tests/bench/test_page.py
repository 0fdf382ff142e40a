"""What the page says of what was measured, and the measured part of the page of growth."""

from dataclasses import replace
from pathlib import Path

import pytest

import goals
import growth_page
import page
import stepwise
from table import aligned, digits, time_text
from timing import Bound, Measured, Row, Spread, ratios


def measured(name: str, **seconds: float) -> Measured:
    samples = {contender: [s, s] for contender, s in seconds.items()}
    ours = samples["gdcore"]
    rows = [Row(who, taken, ratios(taken, ours), 1) for who, taken in samples.items()]
    bound = Bound("read", "B", [1e9, 1e9], Spread(0.5, 0.4, 0.6))
    return Measured("suite", name, "step", 1, rows, bound, {"JAX": "not installed"})


CASES = [measured("won", gdcore=1e-6, eager=8e-6), measured("lost", gdcore=1e-3, eager=5e-4)]


def test_a_table_marks_what_gdcore_loses() -> None:
    text = page.suite_text("suite", CASES, summarised=False)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text if "|" in line]
    assert rows[0] == ["case", "gdcore", "eager", "JAX", "limit"]
    assert rows[2] == ["won", "1.00 µs/step", "8.00", "not installed", "50 % of read"]
    assert rows[3] == ["▼ lost", "1.00 ms/step", "**0.50**", "not installed", "50 % of read"]
    assert rows[4] == ["geometric mean", "", "2.00", "", ""]
    lost = "\n".join(page.lost_text(CASES))
    assert "suite, lost: eager takes 0.50 of gdcore's time" in lost
    assert "won" not in lost


def test_a_floor_is_not_lost_to() -> None:
    floored = [measured("a case", gdcore=1e-6, floor=5e-7, eager=2e-6)]
    assert page.lost_text(floored)[-2] == "Nothing that was measured."


def test_a_goal_that_lacks_a_contender_or_a_compiler_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(goals.limits, "library", lambda: None)
    case = replace(measured(stepwise.CUBIC, gdcore=1e-6), suite=stepwise.SUITE, bound=None)
    results = goals.results([case], [])
    assert sum(result.missing is not None for result in results) == 2
    rows = [line.split("|")[1:-1] for line in page.goals_text(results, quick=False) if "|" in line]
    assert [[cell.strip() for cell in row] for row in rows[2:]] == [
        ["cubic, 2000 points: JAX", "≥ 6 ×", "not measured: JAX not installed", ""],
        [
            "cubic, 2000 points: share of its limit",
            "≥ 40 %",
            "not measured: no C compiler",
            "",
        ],
    ]


def test_many_cases_are_summarised() -> None:
    text = "\n".join(page.suite_text("suite", CASES, summarised=True))
    assert "won" not in text
    for words in ("geometric mean", "least", "greatest", "2 cases"):
        assert words in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5, "2.50 s"), (0.0123, "12.3 ms"), (4e-8, "40.0 ns")]
)
def test_times_are_told_in_three_digits(seconds: float, text: str) -> None:
    assert time_text(seconds) == text
    assert digits(123.4) == "123"


def test_columns_are_aligned() -> None:
    table = [["a", "bc"], ["long", "1"]]
    assert aligned(table) == ["| a    | bc |", "| ---- | -: |", "| long |  1 |"]


def test_a_point_that_a_peer_wins_is_marked() -> None:
    def at(ours: float, eager: float) -> dict[str, Spread]:
        times = {"gdcore.fit": ours, "eager": eager, "limit": 1e-9}
        return {name: Spread(s, s, s) for name, s in times.items()}

    points = [at(1e-6, 2e-6), at(2e-6, 1e-6)]
    lines = growth_page.curve_table(growth_page.Curve("rows", "d = 1", "rows n", [16, 64], points))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    assert rows[2] == ["16", "1.00 µs", "2.00 µs", "1.00 ns", "0 %"]
    assert rows[3] == ["▼ 64", "2.00 µs", "**1.00 µs**", "1.00 ns", "0 %"]


def test_the_measured_part_replaces_what_was_measured_before(tmp_path: Path) -> None:
    spread = Spread(2e-6, 1e-6, 3e-6)
    points = [{"gdcore.fit": spread, "limit": Spread(1e-6, 1e-6, 1e-6)}] * 2
    curves = [growth_page.Curve("rows", "d = 1", "rows n", [16, 64], points)]
    machine = dict.fromkeys(
        ["date", "cpu", "usable_cores", "torch", "jax", "gdcore", "gdcore_instruction_set"], "a"
    ) | {"load_average": 0.1, "gdcore_threads": 2}
    file = tmp_path / "performance.md"
    file.write_text(f"before\n{growth_page.BEGIN}\nstale\n{growth_page.END}\nafter\n")
    for _ in range(2):
        growth_page.write(curves, machine, ["read: 1 GB/s"], tmp_path)
        text = file.read_text()
        assert text.startswith("before\n")
        assert text.endswith("\nafter\n")
        assert "stale" not in text
        assert text.count("| 16     |    2.00 µs | 1.00 µs |  50 % |") == 1
    assert (tmp_path / "performance" / "rows.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="expected the marks"):
        growth_page.replaced("no marks", [])
