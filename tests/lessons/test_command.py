"""`python -m gdcore lessons`: what it prints, writes and returns."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gdcore import __main__, build_info
from gdcore.lessons import LESSONS, golden
from gdcore.lessons.report import as_json
from gdcore.lessons.running import Report

from .conftest import Command


def test_it_prints_what_is_taught_the_table_and_a_summary(lessons: Command) -> None:
    said = lessons("deeper_gd_sgd", "zero_grad")
    assert said.status == 0
    assert said.err == ""
    assert "  The same descent with PyTorch's parts" in said.out
    assert "    Epoch    0/10 W: 0.000 Cost: 4.666667\n" in said.out
    assert "    수식을 w로 미분한 값 : 42.0\n" in said.out
    header, first, second = said.out.splitlines()[-3:]
    assert " ".join(header.split()) == (
        "lesson versions agrees with seed manual autograd fused speed-up"
    )
    assert first.startswith("deeper_gd_sgd")
    assert "manual, autograd, fused  yes" in first
    assert first.endswith(" x")
    assert "manual, autograd         yes" in second
    assert second.split()[-2:] == ["-", "-"]


def test_a_changed_digit_ends_with_status_1_and_shows_the_line(
    lessons: Command, change_golden: Callable[[str, Any], None]
) -> None:
    entry = copy.deepcopy(golden.golden("deeper_gd_manual"))
    changed = entry["lines"][2] = entry["lines"][2].replace("0.119467", "0.119567")
    change_golden("deeper_gd_manual", entry)
    said = lessons("deeper_gd_manual")
    assert said.status == 1
    for backend in ("manual", "autograd", "fused"):
        assert f"  DISAGREES: deeper_gd_manual, {backend}, line 3\n" in said.out
    assert (
        f"    expected: {changed}\n    got:      Epoch    2/10 W: 0.840, Cost: 0.11946" in said.out
    )
    assert "manual, autograd, fused  NO" in said.out


def test_an_unknown_lesson_names_the_nearest(lessons: Command) -> None:
    said = lessons("linear_regresion")
    assert said.status == 2
    assert said.out == ""
    assert said.err == (
        "gdcore lessons: there is no lesson 'linear_regresion'; the nearest name is "
        "'linear_regression' (see --list)\n"
    )


def test_list_names_every_lesson_on_a_line(lessons: Command) -> None:
    said = lessons("--list")
    assert said.status == 0
    assert [line.split()[0] for line in said.out.splitlines()] == list(LESSONS)
    assert all(len(line) <= 100 for line in said.out.splitlines())


@pytest.mark.parametrize("backend", ["manual", "autograd", "fused"])
def test_one_backend_alone(lessons: Command, tmp_path: Path, backend: str) -> None:
    written = tmp_path / "out.json"
    assert lessons("deeper_gd_sgd", "--backend", backend, "--json", written).status == 0
    assert list(json.loads(written.read_text())["deeper_gd_sgd"]) == [backend]


def test_a_version_that_is_not_there(lessons: Command) -> None:
    said = lessons("zero_grad", "--backend", "fused")
    assert (said.status, said.out) == (2, "")
    assert "zero_grad has no fused version; it has manual and autograd" in said.err


def test_the_json_of_every_lesson(reports: dict[str, Report]) -> None:
    data = json.loads(json.dumps(as_json(list(reports.values())), allow_nan=False))
    assert list(data) == list(LESSONS)
    for name, backends in data.items():
        assert list(backends) == list(LESSONS[name].versions)
        for entry in backends.values():
            table = "table" if "table" in golden.golden(name) else "lines"
            assert set(entry) - {"closing"} == {table, "final", "seconds", "agrees"}
            assert entry["agrees"] is True
            assert isinstance(entry["seconds"], float)
            assert all(isinstance(value, float | list) for value in entry["final"].values())
    table = data["sine_torch"]["fused"]["table"]
    assert [step for step, _ in table] == list(range(99, 2000, 100))
    assert data["lab_raw"]["manual"]["lines"] == golden.golden("lab_raw")["lines"]
    assert data["linear_regression"]["autograd"]["final"].keys() == {"W", "b", "cost"}


def test_json_is_written_where_it_was_asked_for(lessons: Command, tmp_path: Path) -> None:
    written = tmp_path / "out.json"
    assert lessons("autograd", "--json", written).status == 0
    assert json.loads(written.read_text("utf-8"))["autograd"]["manual"]["lines"] == [
        "수식을 w로 미분한 값 : 8.0"
    ]


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_what_cannot_be_written_is_said_first(
    lessons: Command, tmp_path: Path, option: str
) -> None:
    if option == "--plot":
        pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    said = lessons("autograd", option, tmp_path / "file" / "below")
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith(f"gdcore lessons: {option} {tmp_path / 'file' / 'below'}: ")


def test_json_on_standard_output_has_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert __main__.main(["lessons", "zero_grad", "--json", "-"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["zero_grad"]
    assert not list(tmp_path.iterdir())


def test_plot_without_matplotlib_says_how_to_get_it(
    lessons: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = lessons("autograd", "--plot", tmp_path)
    assert (said.status, said.out) == (2, "")
    assert said.err == (
        "gdcore lessons: --plot needs matplotlib: pip install -c constraints.txt 'gdcore[plot]'\n"
    )


def test_info_says_how_it_was_built(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["info"]) == 0
    out = capsys.readouterr().out
    assert str(build_info()["version"]) in out
    assert "{" not in out


def test_it_runs_as_a_module_and_without_matplotlib() -> None:
    code = """
import runpy, sys
sys.argv = ["gdcore", "lessons", "autograd"]
try:
    runpy.run_module("gdcore", run_name="__main__")
except SystemExit as exit_:
    sys.exit(3 if "matplotlib" in sys.modules else exit_.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert "8.0" in done.stdout.decode("utf-8")
