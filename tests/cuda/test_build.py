"""The option GDCORE_CUDA, as CMake sees it where there is no nvcc, or an old one."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

needs_cmake = pytest.mark.skipif(
    shutil.which("cmake") is None or importlib.util.find_spec("pybind11") is None,
    reason="no CMake, or no pybind11",
)


# No finder finds the module.
WITHOUT = """
import sys

class Finder:
    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, *where):
        return None if name == "gdcore._cuda" else self._finder.find_spec(name, *where)

sys.meta_path = [Finder(finder) for finder in sys.meta_path]
"""


def test_these_tests_are_skipped_without() -> None:
    """Whole files where the module is missing: no error stops the tests of anything else."""
    few = ["-q", "-p", "no:cacheprovider", "--collect-only", str(Path(__file__).parent)]
    ran = subprocess.run(
        [sys.executable, "-c", f"{WITHOUT}\nimport pytest; sys.exit(pytest.main({few}))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout
    assert "test_build.py" in ran.stdout
    assert "test_without_a_device.py" not in ran.stdout


def configure(
    build: Path, cuda: str, nvcc: str = "no/nvcc", *more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["cmake", "-S", str(ROOT), "-B", str(build), f"-DGDCORE_CUDA={cuda}", *more],
        env={**os.environ, "CUDACXX": str(build / nvcc)},
        capture_output=True,
        text=True,
    )


@needs_cmake
def test_on_needs_nvcc(tmp_path: Path) -> None:
    ran = configure(tmp_path, "ON")
    assert ran.returncode != 0
    assert "GDCORE_CUDA is ON, but no nvcc was found" in ran.stderr


@needs_cmake
def test_auto_goes_without(tmp_path: Path) -> None:
    ran = configure(tmp_path, "AUTO")
    assert ran.returncode == 0, ran.stderr
    assert "no nvcc was found, so no CUDA path" in ran.stdout


@needs_cmake
def test_off_does_not_look(tmp_path: Path) -> None:
    ran = configure(tmp_path, "OFF")
    assert ran.returncode == 0, ran.stderr
    assert "CUDA" not in ran.stdout


@needs_cmake
def test_other_words(tmp_path: Path) -> None:
    ran = configure(tmp_path, "YES")
    assert ran.returncode != 0
    assert "GDCORE_CUDA: expected AUTO, ON or OFF, got YES" in ran.stderr


@needs_cmake
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("chosen", [None, "80-real;90-virtual"])
def test_architectures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None) -> None:
    """What nvcc is asked for, and what the module says that it was."""
    nvcc = str(shutil.which("nvcc"))
    known = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True).stdout
    wanted, said = {"sm_80", "compute_90"}, "80-real, 90-virtual"
    if chosen is None:
        wanted, said = {"sm_80", "sm_90", "compute_90"}, "80-real, 90"
        if "sm_100" in known:
            wanted = {"sm_80", "sm_90", "sm_100", "compute_100"}
            said = "80-real, 90-real, 100"
    monkeypatch.delenv("CUDAARCHS", raising=False)
    more = ["-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
    if chosen is not None:
        more.append(f"-DCMAKE_CUDA_ARCHITECTURES={chosen}")
    ran = configure(tmp_path, "ON", nvcc, *more)
    assert ran.returncode == 0, ran.stderr
    entries = json.loads((tmp_path / "compile_commands.json").read_text())
    (kernels,) = (e["command"] for e in entries if e["file"].endswith("float32.cu"))
    codes = re.findall(r",code=([\w\[\],]+)", kernels)
    assert {name for code in codes for name in code.strip("[]").split(",")} == wanted
    assert any(said in entry["command"] for entry in entries)


@needs_cmake
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc to pass for an older one")
def test_an_nvcc_that_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "nvcc"
    old.write_text(
        '#!/bin/sh\n[ "$1" != --version ] || { echo "tools, release 11.8, V11.8.89"; exit; }\n'
        f'exec {shutil.which("nvcc")} "$@"\n'
    )
    old.chmod(0o755)
    ran = configure(tmp_path / "auto", "AUTO", str(old))
    assert ran.returncode == 0, ran.stderr
    said = "is of CUDA '11.8', and 12.1 or later is needed"
    assert f"{said}, so no CUDA path" in ran.stdout
    ran = configure(tmp_path / "on", "ON", str(old))
    assert ran.returncode != 0
    assert said in " ".join(ran.stderr.split())
