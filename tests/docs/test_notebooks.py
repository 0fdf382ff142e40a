"""The notebooks of examples/ run from the first cell to the last, and are kept without output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ["choosing_a_rate", "first_line", "minibatches", "your_own_model"]


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    return content


def test_these_are_the_notebooks() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_kept_without_output(name: str) -> None:
    for cell in read(name)["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str) -> None:
    nbclient = pytest.importorskip("nbclient", reason="notebooks run with the docs extra")
    pytest.importorskip("ipykernel", reason="notebooks run with the docs extra")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert "image/png" in kinds, "no picture"
    warnings = [o["text"] for o in outputs if o.get("name") == "stderr"]
    assert not warnings
