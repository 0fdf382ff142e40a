"""Arrows between the packages point down, as CONTRIBUTING.md lists them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gdcore

ROOT = Path(gdcore.__file__).parent
ABOVE = {
    "_optim": ("_native", "_recognition", "_loop", "_insight", "affine", "training", "optim"),
    "_native": ("_recognition", "_loop", "_insight", "affine", "training", "_curvature", "_sweep"),
    "_recognition": ("_loop", "_insight", "affine", "training", "_curvature", "_sweep"),
    "_loop": ("_insight", "training", "_explain", "_curvature", "_sweep", "lessons"),
    "_insight": ("_loop", "training", "_explain", "_sweep", "lessons"),
}


def imported(path: Path) -> set[str]:
    """The packages and modules of gdcore that a module two levels deep imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found.update(name.split(".")[0] for name in names)
    return found


@pytest.mark.parametrize("package", ABOVE)
def test_a_layer_knows_nothing_above_it(package: str) -> None:
    modules = list((ROOT / package).glob("*.py"))
    assert len(modules) > 5
    below = set().union(*map(imported, modules))
    assert below, "nothing was read"
    assert not below & set(ABOVE[package])


def run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)


def test_importing_gdcore_leaves_what_not_every_program_needs() -> None:
    """It is to take little more than importing torch does: what trains comes when it is used."""
    run("""
import sys, torch, gdcore
late = (
    "gdcore._insight", "gdcore._loop", "gdcore._recognition", "gdcore.affine", "gdcore.metrics",
    "gdcore.plotting", "gdcore.training",
)
assert not [name for name in sys.modules if name.startswith(late)]
for name in gdcore.__all__:
    getattr(gdcore, name)
assert all(name in sys.modules for name in late)
assert callable(gdcore.curvature) and callable(gdcore.sweep)
""")


def test_what_is_imported_late_is_itself_whatever_was_imported_before() -> None:
    """A module that is imported stands in its package under its name: in no function's place."""
    run("""
import pkgutil, types, gdcore
for module in pkgutil.walk_packages(gdcore.__path__, "gdcore."):
    if module.name != "gdcore.__main__" and "lessons" not in module.name:
        __import__(module.name)
modules = {"affine", "functional", "metrics", "nn", "optim", "plotting", "reference"}
for name in gdcore.__all__:
    assert isinstance(getattr(gdcore, name), types.ModuleType) == (name in modules), name
""")
