"""Choosing an instruction set, and keeping each one's instructions to its own kernels."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

import gdcore
from gdcore import _core, _ops

AVAILABLE = _ops.available_instruction_sets()
UNAVAILABLE = [name for name in _ops.built_instruction_sets() if name not in AVAILABLE]
SHOW_ACTIVE = "import gdcore; print(gdcore.build_info()['instruction_sets']['active'])"


def python(code: str, instruction_set: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "GDCORE_ISA"}
    if instruction_set is not None:
        environment["GDCORE_ISA"] = instruction_set
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_what_is_built_and_available() -> None:
    built = _ops.built_instruction_sets()
    if platform.machine() == "x86_64":
        assert built == ["baseline", "avx2", "avx512"]
    else:
        assert built == ["baseline"]
    assert AVAILABLE[0] == "baseline"
    assert set(AVAILABLE) <= set(built)
    info = gdcore.build_info()["instruction_sets"]
    assert info == {
        "built": built,
        "available": AVAILABLE,
        "active": _ops.active_instruction_set(),
    }


def test_the_widest_is_used() -> None:
    assert python(SHOW_ACTIVE, None).stdout.strip() == AVAILABLE[-1]


@pytest.mark.parametrize("name", _ops.built_instruction_sets())
def test_the_environment_forces_one(name: str) -> None:
    if name not in AVAILABLE:
        pytest.skip("not executable on this processor")
    assert python(SHOW_ACTIVE, name).stdout.strip() == name


@pytest.mark.parametrize("name", [*UNAVAILABLE, "sse9"])
def test_the_environment_names_one_that_is_not_available(name: str) -> None:
    failed = python(SHOW_ACTIVE, name)
    assert failed.returncode != 0
    assert failed.stderr.strip().splitlines()[-1] == (
        "ImportError: GDCORE_ISA: instruction set: expected one available on this processor "
        f"({', '.join(AVAILABLE)}), got '{name}'"
    )


@pytest.mark.parametrize("name", [*UNAVAILABLE, "sse9", ""])
def test_choosing_one_that_is_not_available(name: str) -> None:
    before = _ops.active_instruction_set()
    with pytest.raises(ValueError, match=re.escape(f"({', '.join(AVAILABLE)}), got '{name}'")):
        _ops.choose_instruction_set(name)
    assert _ops.active_instruction_set() == before


def functions() -> Iterator[tuple[str, set[str]]]:
    """Each function of the extension, with what is wide in it: vex, ymm or zmm."""
    objdump = [
        "objdump",
        "--disassemble",
        "--section=.text",
        "--demangle",
        "--no-show-raw-insn",
        _core.__file__,
    ]
    listing = subprocess.run(objdump, capture_output=True, text=True, check=True).stdout
    name, wide = "", set[str]()
    for line in listing.splitlines():
        if header := re.fullmatch(r"[0-9a-f]+ <(.*)>:", line):
            yield name, wide
            name, wide = header[1], set()
        elif instruction := re.match(r"\s*[0-9a-f]+:\s+(\S+)(.*)", line):
            mnemonic, operands = instruction[1], instruction[2]
            if mnemonic.startswith("v"):
                wide.add("vex")
            if "%ymm" in operands:
                wide.add("ymm")
            if re.search(r"%zmm|%k[0-7]|%[xy]mm(1[6-9]|[23]\d)", operands):
                wide.add("zmm")
    yield name, wide


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64 only")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is missing")
def test_wide_instructions_stay_in_their_kernels() -> None:
    found: dict[str, list[tuple[str, set[str]]]] = {"avx2": [], "avx512": [], "": []}
    for name, wide in functions():
        namespace = re.match(r"[^(]*\bgdcore::(avx2|avx512)::", name)
        found[namespace[1] if namespace else ""].append((name, wide))
    if not found["avx2"]:
        pytest.skip("the extension was stripped of its symbols")
    assert len(found[""]) > 100
    assert [function for function in found[""] if function[1]] == []
    assert [name for name, wide in found["avx2"] if "zmm" in wide] == []
    # The listing does show wide instructions where they belong.
    assert any("ymm" in wide for _, wide in found["avx2"])
    assert any("zmm" in wide for _, wide in found["avx512"])
