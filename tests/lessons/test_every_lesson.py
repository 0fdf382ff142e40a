"""Every lesson in every version agrees with its seed, and none would agree with anything else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from gdcore.lessons import LESSONS, golden
from gdcore.lessons.language import language
from gdcore.lessons.running import Report

PAIRS = [(name, backend) for name, lesson in LESSONS.items() for backend in lesson.versions]
NOT_FUSED = {"zero_grad", "autograd"}


def test_every_program_of_the_seeds_is_a_lesson() -> None:
    assert set(LESSONS) == set(golden.all_golden()) - {"_about"}
    for name, lesson in LESSONS.items():
        expected = {"manual", "autograd"} | (set() if name in NOT_FUSED else {"fused"})
        assert set(lesson.versions) == expected
        assert 2 <= lesson.teaches.count(". ") + 1 <= 3


@pytest.mark.parametrize(("name", "backend"), PAIRS)
def test_it_agrees_with_its_seed(reports: dict[str, Report], name: str, backend: str) -> None:
    outcome = reports[name].outcomes[backend]
    assert outcome.disagreement is None
    assert outcome.lines
    assert outcome.run.seconds > 0.0


def other_line(line: str) -> str:
    """A line whose last digit is off by five."""
    return line[:-1] + str((int(line[-1]) + 5) % 10)


def one_line(entry: dict[str, Any]) -> None:
    entry["lines"][4] = other_line(entry["lines"][4])


def one_loss(key: str) -> Callable[[dict[str, Any]], None]:
    def change(entry: dict[str, Any]) -> None:
        entry[key][3] *= 1.001

    return change


def one_of_the_table(entry: dict[str, Any]) -> None:
    entry["table"][7][1] *= 1.0002


def final(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(entry: dict[str, Any]) -> None:
        for key in keys[:-1]:
            entry = entry[key]
        last = entry[keys[-1]]
        if isinstance(last, list):
            last[1] += 0.001
        else:
            entry[keys[-1]] = last * 1.01

    return change


def second_error(entry: dict[str, Any]) -> None:
    entry["error"][1] += 1


def the_slip(entry: dict[str, Any]) -> None:
    entry["error"][2] += 1


def last_of_the_table(entry: dict[str, Any]) -> None:
    entry["table"][-1][1] *= 1.1


def oscillation(entry: dict[str, Any]) -> None:
    entry["final_coefficients"][0] *= 2


CHANGES: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    ("deeper_gd_manual", one_line),
    ("deeper_gd_sgd", one_line),
    ("linear_regression", one_line),
    ("study_hours_errors", second_error),
    ("study_hours_errors", the_slip),
    ("zero_grad", lambda entry: entry["lines"].pop()),
    ("autograd", lambda entry: entry.update(gradient=8.5)),
    ("sine_numpy", one_of_the_table),
    ("sine_numpy", final("final_coefficients")),
    ("sine_torch", one_of_the_table),
    ("sine_torch", final("final_coefficients")),
    ("legendre", one_of_the_table),
    ("legendre", final("final", "d")),
    ("sine_nn", one_of_the_table),
    ("sine_nn", final("final_coefficients")),
    ("sine_rmsprop", last_of_the_table),
    ("sine_rmsprop", oscillation),
    ("multivariate_separate", one_loss("losses")),
    ("multivariate_separate", final("final", "w2")),
    ("multivariate_matrix", one_loss("losses")),
    ("multivariate_matrix", final("final", "W")),
    ("multivariate_nn", one_loss("losses")),
    ("multivariate_nn", final("final", "weight")),
    ("nn_linear", final("final", "weight")),
    ("nn_linear", final("final", "loss")),
    ("nn_linear", final("init", "bias")),
    ("lab_raw", one_line),
    ("lab_module", one_line),
    ("minibatch", one_loss("step_losses")),
    ("minibatch", final("final", "weight")),
    ("learning_rate", lambda entry: one_loss("costs")(entry["too_high"])),
    ("learning_rate", lambda entry: one_loss("costs")(entry["too_low"])),
]


@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_it_disagrees_with_any_other_table(
    reports: dict[str, Report],
    change_golden: Callable[[str, Any], None],
    name: str,
    change: Callable[[dict[str, Any]], None],
) -> None:
    entry = copy.deepcopy(golden.golden(name))
    change(entry)
    change_golden(name, entry)
    report = reports[name]
    for backend, outcome in report.outcomes.items():
        found = report.lesson.check(backend, outcome.run, outcome.lines)
        assert found is not None, backend
        assert found.expected != found.got


def test_every_lesson_has_a_changed_table() -> None:
    assert {name for name, _ in CHANGES} == set(LESSONS)


@pytest.mark.parametrize(
    ("name", "key"),
    [("multivariate_nn", "losses"), ("minibatch", "step_losses"), ("learning_rate", "costs")],
)
def test_manual_and_autograd_are_held_to_every_digit(
    reports: dict[str, Report],
    change_golden: Callable[[str, Any], None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    key: str,
) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    entry = copy.deepcopy(golden.golden(name))
    costs = (entry["too_high"] if name == "learning_rate" else entry)[key]
    costs[5] *= 1 + 2.0**-23
    change_golden(name, entry)
    report = reports[name]
    for backend in ("manual", "autograd"):
        outcome = report.outcomes[backend]
        assert report.lesson.check(backend, outcome.run, outcome.lines) is not None


def test_the_score_after_four_hours_is_eight(reports: dict[str, Report]) -> None:
    report = reports["linear_regression"]
    for outcome in report.outcomes.values():
        (answer,) = report.lesson.closing(outcome.run, report.settings)
        assert language("en").say(answer) == "After 4 hours of study: 7.995, that is 8 points."


def test_the_slip_of_the_seed_is_told(reports: dict[str, Report]) -> None:
    report = reports["study_hours_errors"]
    for outcome in report.outcomes.values():
        assert "|오차|-2|10|-11|-5|" in outcome.lines
        _, slip = report.lesson.closing(outcome.run, report.settings)
        assert language("en").say(slip) == "(For 4 hours the seed prints -9; 42 - 53 is -11.)"


def test_the_shuffled_batches_differ_from_those_in_order(reports: dict[str, Report]) -> None:
    for outcome in reports["minibatch"].outcomes.values():
        by_series = {
            series: [row.cost for row in outcome.run.series(series)]
            for series in ("in order", "shuffled", "custom Dataset")
        }
        assert len(by_series["shuffled"]) == 60
        assert by_series["shuffled"] == by_series["custom Dataset"]
        assert by_series["shuffled"] != by_series["in order"]
