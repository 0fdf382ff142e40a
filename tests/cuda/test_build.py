"""The option GDCORE_CUDA, as CMake sees it where there is no nvcc."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytest.importorskip("pybind11")
pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="no CMake")


def configure(build: Path, cuda: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["cmake", "-S", str(ROOT), "-B", str(build), f"-DGDCORE_CUDA={cuda}"],
        env={**os.environ, "CUDACXX": str(build / "no" / "nvcc")},
        capture_output=True,
        text=True,
    )


def test_on_needs_nvcc(tmp_path: Path) -> None:
    ran = configure(tmp_path, "ON")
    assert ran.returncode != 0
    assert "GDCORE_CUDA is ON, but no nvcc was found" in ran.stderr


def test_auto_goes_without(tmp_path: Path) -> None:
    ran = configure(tmp_path, "AUTO")
    assert ran.returncode == 0, ran.stderr
    assert "no nvcc, so no CUDA path" in ran.stdout


def test_off_does_not_look(tmp_path: Path) -> None:
    ran = configure(tmp_path, "OFF")
    assert ran.returncode == 0, ran.stderr
    assert "CUDA" not in ran.stdout


def test_other_words(tmp_path: Path) -> None:
    ran = configure(tmp_path, "YES")
    assert ran.returncode != 0
    assert "GDCORE_CUDA: expected AUTO, ON or OFF, got YES" in ran.stderr
