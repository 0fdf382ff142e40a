"""The comparisons themselves: what they let pass, and what they do not."""

from __future__ import annotations

import pytest

from gdcore.lessons.agreement import (
    close_lines,
    compare_digits,
    compare_lines,
    compare_table,
    compare_within,
    same_lines,
)

LINE = "Epoch  100/1999 W: 1.746, b: -0.578 Cost: 0.048171"


def test_the_same_lines_agree() -> None:
    assert same_lines([LINE, "x"], [LINE, "x"]) is None
    assert close_lines([LINE], [LINE]) is None


@pytest.mark.parametrize(
    "other",
    [
        LINE.replace("0.048171", "0.048172"),
        LINE.replace("0.048171", "0.048170"),
        LINE.replace("1.746", "1.745").replace("-0.578", "-0.579"),
    ],
)
def test_one_in_the_last_digit_is_close_but_not_the_same(other: str) -> None:
    assert close_lines([LINE], [other]) is None
    assert same_lines([LINE], [other]) is not None
    assert compare_lines("fused", [LINE], [other]) is None
    assert compare_lines("manual", [LINE], [other]) is not None


@pytest.mark.parametrize(
    "other",
    [
        LINE.replace("0.048171", "0.048173"),
        LINE.replace("1.746", "1.748"),
        LINE.replace("-0.578", "0.578"),
        LINE.replace("100", "101"),
        LINE.replace("Cost", "Loss"),
        LINE.replace("0.048171", "nan"),
        LINE.replace("0.048171", "0.0481"),
        LINE + " 1.0",
    ],
)
def test_anything_more_is_not_close(other: str) -> None:
    found = close_lines([LINE, LINE], [LINE, other])
    assert found is not None
    assert (found.where, found.expected, found.got) == ("line 2", LINE, other)


def test_a_number_that_crosses_zero_or_a_power_of_ten_is_close() -> None:
    assert close_lines(["b: 0.000"], ["b: -0.000"]) is None
    assert close_lines(["loss: 3.00e-07"], ["loss: 2.99e-07"]) is None
    assert close_lines(["loss: 1.00e-07"], ["loss: 1.00e-06"]) is not None


@pytest.mark.parametrize("compare", [same_lines, close_lines])
def test_a_missing_line_disagrees(compare: object) -> None:
    assert callable(compare)
    assert compare([LINE], []).got == "(no line)"
    assert compare([], [LINE]).expected == "(no line)"


def test_digits_are_those_that_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    assert compare_digits("cost", [1.5636, 1.435], [1.56362, 1.43498]) is None
    assert compare_digits("cost", [1.5636, 1.435], [1.56362, 1.4351]) is not None
    assert compare_digits("cost", [0.2259877622127533], [0.2259877622127533]) is None
    assert compare_digits("cost", [0.2259877622127533], [0.2259877771139145]) is not None
    assert compare_digits("cost", [1.0, 2.0], [1.0]) is not None
    assert compare_digits("cost", [1.0], [float("nan")]) is not None


def test_other_instruction_sets_are_granted_their_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT")
    assert compare_digits("cost", [0.2259877622127533], [0.2259925156831741]) is None
    assert compare_digits("cost", [0.2259877622127533], [0.2260500000000000]) is not None
    assert compare_digits("cost", [1.0], [float("nan")]) is not None


def test_tables_need_the_same_steps_and_close_losses() -> None:
    table = [(99, 100.0), (199, 10.0)]
    assert compare_table(table, [(99, 100.0009), (199, 9.99999)], 1e-5) is None
    assert compare_table(table, [(99, 100.0011), (199, 10.0)], 1e-5) is not None
    assert compare_table(table, [(99, 100.0), (200, 10.0)], 1e-5) is not None
    assert compare_table(table, table[:1], 1e-5) is not None
    assert compare_table(table, [(99, 100.0), (199, float("nan"))], 1e-5) is not None


def test_within_a_tolerance() -> None:
    assert compare_within("b", [1.0], [1.01], 0.02) is None
    assert compare_within("b", [1.0], [1.03], 0.02) is not None
    assert compare_within("b", [1.0], [float("nan")], 0.02) is not None
    assert compare_within("b", [1.0], [], 0.02) is not None
