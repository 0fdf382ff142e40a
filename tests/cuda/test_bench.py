"""The bench for a device, as far as it goes without one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import gpu

    monkeypatch.setattr(gpu, "describe", lambda: {"device": "none"})
    return gpu


def found(name: str) -> dict[str, Any]:
    row = {"contender": "gdcore", "milliseconds": 1.0, "ratio": 1.0, "share of a copy": None}
    return {"case": name, "unit": "step", "goal": None, "rows": [row]}


def test_what_was_measured_is_left(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one cut short after two cases, of which one failed."""

    def measure(name: str, _: float) -> Any:
        if name == "disagrees":
            raise AssertionError(name)
        if name == "cut short":
            raise KeyboardInterrupt
        return found(name)

    monkeypatch.setattr(gpu, "measure", measure)
    names = ("disagrees", "first", "cut short", "never")
    with pytest.raises(KeyboardInterrupt):
        gpu.bench([lambda name=name: name for name in names], tmp_path / "device", False)
    written = json.loads((tmp_path / "device.json").read_text())
    assert [one["case"] for one in written["results"]] == ["first"]
    assert written["cases"] == 4
    assert "| first, per step |" in (tmp_path / "device.md").read_text()


@pytest.mark.parametrize("name", ["lesson_line", "sin_cubic"])
def test_small_loops_are_timed_step_by_step(
    gpu: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a goal is for, on the CPU here; "auto", which may compress, is a contender beside it."""
    import gpu_cases

    monkeypatch.setattr(gpu_cases, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_cases.Fit, "graph", lambda fit: fit.eager(1))
    case = getattr(gpu_cases, name)(*((30,) if name == "lesson_line" else (50, 30)))
    assert list(case.runs) == ["gdcore, stepwise", "eager", "eager, in a graph", "gdcore, auto"]
    assert case.name.endswith(", stepwise")
    history = case.runs["gdcore, stepwise"]()
    assert (history.plan.method, len(history.loss)) == ("stepwise", case.units)
    assert len(case.runs["gdcore, auto"]().loss) == case.units


def test_a_step_of_many_outputs(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_cases

    monkeypatch.setattr(gpu_cases, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_cases.Fit, "graph", lambda fit: fit.eager(1))
    case = gpu_cases.linear_steps(500, 64, None, outputs=16)
    assert case.moved == 4 * 500 * (64 + 16)
    losses = case.runs["gdcore"]()
    assert len(losses) == case.units
    assert losses[-1] < losses[0]


def run_script(tmp_path: Path, seconds: int, **commands: str) -> SimpleNamespace:
    """`bench/gpu.sh` with stand-ins for the commands that it calls."""
    for name, script in commands.items():
        at = tmp_path / name.replace("_", "-")
        at.write_text(f"#!/bin/sh\n{script}\n")
        at.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    ran = subprocess.run(
        # As in the background, where SIGINT is ignored.
        ["bash", "-c", "trap '' INT; exec bash bench/gpu.sh \"$1\"", "", str(tmp_path / "results")],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "GDCORE_GPU_SECONDS": str(seconds)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return SimpleNamespace(code=ran.returncode, said=ran.stdout)


def test_the_script_ends_in_time(tmp_path: Path) -> None:
    """A stage takes no more than is left, and what comes after is told to be out of time."""
    slow = 'case "$*" in *"bench/gpu.py"*|*info*) sleep 30;; esac'
    ran = run_script(tmp_path, 4, python3=slow, compute_sanitizer="exit 1")
    assert ran.code == 1
    assert "-- failed: info (out of time)" in ran.said
    assert "-- failed: bench (out of time)" in ran.said


def test_the_script_leaves_what_was_said(tmp_path: Path) -> None:
    """By a stage that ran out of time, too, which is asked for its summary before it ends."""
    slow = "trap 'echo the summary; exit 2' INT; echo begun; sleep 30"
    ran = run_script(tmp_path, 3, python3=f'case "$*" in *info*) {slow};; esac')
    assert "begun\nthe summary\n-- failed: info (out of time)" in ran.said
    assert (tmp_path / "results" / "logs" / "info.log").read_text() == "begun\nthe summary\n"


def test_the_script_adds_to_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And builds from nothing every time."""
    monkeypatch.setenv("PYTHONPATH", "/given")
    noted = 'echo "$PYTHONPATH $*" >> "$(dirname "$0")/called"'
    for _ in range(2):
        run_script(tmp_path, 580, python3=noted)
    called = (tmp_path / "called").read_text().splitlines()
    paths = [line.split()[0] for line in called if "gdcore info" in line]
    assert [path.partition(":")[2] for path in paths] == ["/given"] * 2
    folders = [word for line in called for word in line.split() if "build-dir=" in word]
    assert len(set(folders)) == len(folders) == 2


def test_the_script_says_what_is_missing(tmp_path: Path) -> None:
    """And goes on: it builds, and measures."""
    lacks = 'echo "$*" >> "$(dirname "$0")/called"; [ "$*" != "-c import numpy" ]'
    ran = run_script(tmp_path, 580, python3=lacks)
    assert ran.code == 1
    assert "-- failed: tests (missing: numpy; nothing was tested)" in ran.said
    assert "failed: tests after" in ran.said
    called = (tmp_path / "called").read_text()
    assert "-m pip install ." in called
    assert "bench/gpu.py" in called
    assert "-m pytest" not in called


def test_the_script_says_what_a_build_lacks(tmp_path: Path) -> None:
    lacks = 'case "$*" in "-c import pybind11"|*pip*) exit 1;; esac'
    ran = run_script(tmp_path, 580, python3=lacks)
    assert ran.code == 1
    assert "-- missing, and needed to build: pip pybind11" in ran.said
    assert "-- failed: build" in ran.said


@pytest.mark.parametrize(
    ("told", "architectures"),
    [
        ("9.0\n8.0\n9.0\n", "80-real;90-real"),
        ("10.0\n", "100-real"),
        ("no devices were found\n", None),
    ],
)
def test_the_script_builds_for_every_device(
    tmp_path: Path, told: str, architectures: str | None
) -> None:
    told = told.replace("\n", "\\n")
    noted = 'case "$*" in *pip*) echo "$*" > "$(dirname "$0")/pip"; exit 1;; esac'
    run_script(tmp_path, 580, python3=noted, nvidia_smi=f"printf '{told}'")
    called = (tmp_path / "pip").read_text()
    if architectures is None:
        assert "ARCHITECTURES" not in called
    else:
        assert f"CMAKE_CUDA_ARCHITECTURES={architectures}" in called.split()[-1]


@pytest.mark.parametrize(
    ("log", "code", "said"),
    [
        ("1 failed, 2 passed in 3.0s", 9, "-- failed: memcheck (a test fails under it)"),
        ("3 passed, 1 error in 3.0s", 1, "-- failed: memcheck (a test fails under it)"),
        ("========= ERROR SUMMARY: 2 errors", 9, "-- failed: memcheck (errors)"),
        ("Target application terminated", 1, "-- memcheck: not run here to its end (status 1)"),
        ("3 passed in 2.1s\n========= ERROR SUMMARY: 0 errors", 0, "passed after"),
    ],
)
def test_the_script_reads_the_sanitizer(tmp_path: Path, log: str, code: int, said: str) -> None:
    log = log.replace("\n", "\\n")
    ran = run_script(
        tmp_path, 580, python3="exit 0", compute_sanitizer=f"printf '{log}\\n'; exit {code}"
    )
    assert said in ran.said, ran.said
    assert (ran.code != 0) == ("failed:" in said)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device would be measured")
def test_it_says_that_it_has_not_measured() -> None:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "gpu.py")], capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert "not measured" in ran.stderr
