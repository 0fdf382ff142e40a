"""What `import gdcore` brings in, and what it says where it cannot work. Fresh processes."""

import os
import re
import subprocess
import sys

import torch

import gdcore


def python(program: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def test_nothing_heavy_comes_with_it() -> None:
    """Beside what torch has imported: gdcore itself and the standard library, no more."""
    found = python(
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "import gdcore\n"
        "print(*sorted(set(sys.modules) - before))\n"
        "print(gdcore.build_info()['instruction_sets']['active'])\n",
        GDCORE_ISA="baseline",
    )
    assert found.returncode == 0, found.stderr
    *imported, active = found.stdout.split()
    assert active == "baseline"
    assert "gdcore" in imported
    assert "gdcore._core" in imported
    strangers = {
        name
        for name in imported
        if name.partition(".")[0] not in {"gdcore", *sys.stdlib_module_names}
    }
    assert not strangers, f"torch had not imported {sorted(strangers)}"
    assert not any(name.startswith("gdcore.lessons") for name in imported)
    assert "gdcore.plotting" not in imported


def test_a_torch_without_the_exchange_table() -> None:
    found = python(
        "import torch\ndel torch.Tensor.__dlpack_c_exchange_api__\nimport gdcore\n",
    )
    assert found.returncode == 1
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: gdcore needs torch 2.11 or later"), last
    assert f"this is torch {torch.__version__}" in last
    assert last.count(". ") == 0, "one sentence"


def test_an_instruction_set_that_is_not_there() -> None:
    found = python("import gdcore", GDCORE_ISA="mmx")
    assert found.returncode == 1
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: GDCORE_ISA: "), last
    assert "mmx" in last
    for name in gdcore.build_info()["instruction_sets"]["available"]:
        assert name in last


def test_build_info() -> None:
    info = gdcore.build_info()
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", info["version"])
    assert info["version"] == gdcore.__version__
    assert info["torch"] == torch.__version__
    assert info["threads"] == torch.get_num_threads()
    assert isinstance(info["compiler"], str)
    assert info["compiler"]
    sets = info["instruction_sets"]
    assert sets["active"] in sets["available"]
    assert set(sets["available"]) <= set(sets["built"])
    assert isinstance(info["cuda"]["built"], bool)


def test_threads_follow_torch() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert gdcore.build_info()["threads"] == 1
    finally:
        torch.set_num_threads(before)


def test_public_names() -> None:
    """What __all__ promises is there, and what is there is promised."""
    for module in (gdcore, gdcore.functional, gdcore.metrics, gdcore.nn, gdcore.optim):
        for name in module.__all__:
            assert hasattr(module, name), f"{module.__name__}.{name}"
    assert {"functional", "nn", "optim", "reference", "train_step", "fit", "History"} <= set(
        gdcore.__all__
    )
    assert issubclass(gdcore.DivergenceError, ArithmeticError)
    assert issubclass(gdcore.optim.SGD, torch.optim.Optimizer)
