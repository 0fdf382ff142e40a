"""Lessons are programs: other rates, epochs, seeds and data, on which the versions agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gdcore.lessons import LESSONS
from gdcore.lessons.running import Report

from .conftest import Command

HOURS = "hours,points\n1,2.1\n2,3.9\n3,6.2\n5,9.8\n"
THREE = "x1,x2,x3,y\n1,2,3,10\n2,1,0,5\n3,3,1,12\n4,0,2,11\n0.5,2,2,8\n7,1,1,14\n"

TRAINED = [name for name, lesson in LESSONS.items() if "lr" in lesson.options]


@pytest.fixture
def hours(tmp_path: Path) -> Path:
    path = tmp_path / "hours.csv"
    path.write_text(HOURS)
    return path


@pytest.fixture
def three(tmp_path: Path) -> Path:
    path = tmp_path / "three.csv"
    path.write_text(THREE)
    return path


def test_another_start(lessons: Command) -> None:
    said = lessons(*TRAINED, "--seed", 5, "--epochs", 40)
    assert said.status == 0, said.out
    assert said.out.count("  yes  ") == len(TRAINED)


def test_a_lower_rate(lessons: Command) -> None:
    said = lessons(*TRAINED, "--lr", "1e-7", "--epochs", 20)
    assert said.status == 0, said.out
    assert "versions agree" in said.out


# RMSprop's steps are of the size of the rate, so it does not diverge.
@pytest.mark.parametrize("name", [name for name in TRAINED if name != "sine_rmsprop"])
def test_a_rate_that_is_too_high_is_shown_to_diverge(
    lessons: Command, tmp_path: Path, name: str
) -> None:
    written = tmp_path / "out.json"
    said = lessons(name, "--backend", "fused", "--lr", 3, "--epochs", 40, "--json", written)
    assert said.status == 0, said.out
    assert "    At lr 3 this run diverges: by step " in said.out
    assert said.out.splitlines()[-1].endswith("diverges")
    entry = json.loads(written.read_text())[name]["fused"]
    assert entry["diverged_at"] > 0
    assert entry.get("table") or entry.get("lines")


def test_a_rate_that_grows_slowly_agrees_row_by_row(lessons: Command) -> None:
    said = lessons("learning_rate", "--lr", 0.25, "--epochs", 40)
    assert said.status == 0
    assert "lr 0.25:" in said.out
    assert "lr 0.001" not in said.out
    assert "at 2 / 9.333 = 0.214286" in " ".join(said.out.split())


def test_data_of_one_column(lessons: Command, hours: Path) -> None:
    said = lessons("--data", hours, "--epochs", 30, "--lr", 0.001)
    assert said.status == 0, said.out
    assert f"multivariate_separate takes 3 x columns and y; {hours} has 1 and y" in said.out
    assert "zero_grad takes no --lr: it takes no steps" in said.out


def test_data_of_several_columns(lessons: Command, three: Path) -> None:
    names = ("multivariate_separate", "multivariate_matrix", "multivariate_nn", "minibatch")
    said = lessons(*names, "--data", three, "--epochs", 60, "--lr", 0.001)
    assert said.status == 0, said.out
    assert said.out.count("  yes  ") == len(names)


def test_the_errors_of_the_line_on_other_data(lessons: Command, hours: Path) -> None:
    said = lessons("study_hours_errors", "--data", hours)
    assert said.status == 0
    assert "|오차|-11.9|-23.1|-33.8|-56.2|" in said.out
    assert "the seed prints" not in said.out


@pytest.mark.parametrize("seed", range(8))
def test_the_errors_of_the_line_on_any_data(lessons: Command, tmp_path: Path, seed: int) -> None:
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(seed)) * 10.0 ** (seed - 4)
    path = tmp_path / "any.csv"
    path.write_text("\n".join(f"{a},{b}" for a, b in x.tolist()))
    assert lessons("study_hours_errors", "--data", path).status == 0


def test_data_of_the_wrong_width_for_a_named_lesson(lessons: Command, three: Path) -> None:
    said = lessons("linear_regression", "--data", three)
    assert (said.status, said.out) == (2, "")
    assert f"linear_regression takes one x column and y; {three} has 3 and y" in said.err


@pytest.mark.parametrize(
    ("name", "option", "why"),
    [
        ("zero_grad", "--lr=1", "it takes no steps"),
        ("zero_grad", "--data=x.csv", "it differentiates an expression, and has no data"),
        ("autograd", "--epochs=3", "it differentiates once"),
        ("study_hours_errors", "--seed=3", "nothing in it is random"),
    ],
)
def test_an_option_that_a_lesson_cannot_take(
    lessons: Command, name: str, option: str, why: str
) -> None:
    said = lessons(name, option)
    flag = option.partition("=")[0]
    assert (said.status, said.out) == (2, "")
    assert said.err == f"gdcore lessons: {name} takes no {flag}: {why}\n"


@pytest.mark.parametrize(
    "option", ["--lr=0", "--lr=-1", "--lr=nan", "--lr=x", "--epochs=0", "--epochs=1.5", "--seed=-1"]
)
def test_values_out_of_range(lessons: Command, option: str) -> None:
    said = lessons("linear_regression", option)
    assert (said.status, said.out) == (2, "")
    assert "expected a " in said.err


def test_calls_of_backward_can_be_counted_otherwise(lessons: Command) -> None:
    said = lessons("zero_grad", "--epochs", 3)
    assert said.status == 0
    assert "값 : 6.0" in said.out
    assert "값 : 8.0" not in said.out


def test_one_version_alone_is_still_compared(lessons: Command) -> None:
    for backend in ("manual", "autograd", "fused"):
        said = lessons("deeper_gd_sgd", "--seed", 2, "--backend", backend)
        assert said.status == 0
        assert "  yes  " in said.out


def test_the_same_settings_give_the_same_numbers(lessons: Command, tmp_path: Path) -> None:
    finals = []
    for attempt in ("first.json", "second.json"):
        written = tmp_path / attempt
        names = ("lab_module", "minibatch", "sine_numpy")
        assert lessons(*names, "--seed", 4, "--epochs", 30, "--json", written).status == 0
        data = json.loads(written.read_text())
        finals.append({name: {b: e["final"] for b, e in data[name].items()} for name in data})
    assert finals[0] == finals[1]


def test_long_tables_are_shortened(lessons: Command) -> None:
    said = lessons("zero_grad", "--epochs", 100)
    assert "... 70 more lines ..." in said.out


def test_the_own_settings_are_the_seeds(reports: dict[str, Report]) -> None:
    assert reports["linear_regression"].settings.lr == 0.01
    assert reports["linear_regression"].settings.epochs == 2000
    assert reports["sine_numpy"].settings.x.shape == (2000,)
