"""What the CUDA kernels take, from what ``ptxas -v`` has said in a build's output.

``python .ci/kernels.py BUILD_LOG [--table]`` fails where a kernel keeps registers in memory: a
spill, or a stack frame, costs it the memory's speed that it was written for.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Kernel(NamedTuple):
    name: str
    architecture: str
    registers: int
    shared: int
    stack: int
    spilled: int


ENTRY = re.compile(r"Compiling entry function '(?P<name>\w+)' for '(?P<architecture>\w+)'")
MEMORY = re.compile(
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads"
)
USED = re.compile(r"Used (?P<registers>\d+) registers(?:.*?(?P<shared>\d+) bytes smem)?")


def kernels(log: str) -> list[Kernel]:
    """Every kernel of the log, once for each architecture; functions that it calls count to it."""
    found: list[Kernel] = []
    name = architecture = None
    stack = spilled = 0
    for line in log.splitlines():
        if match := ENTRY.search(line):
            name, architecture = match["name"], match["architecture"]
            stack = spilled = 0
        elif match := MEMORY.search(line):
            stack += int(match["stack"])
            spilled += int(match["stores"]) + int(match["loads"])
        elif (match := USED.search(line)) and name is not None and architecture is not None:
            shared = int(match["shared"] or 0)
            found.append(
                Kernel(name, architecture, int(match["registers"]), shared, stack, spilled)
            )
            name = None
    return found


def readable(names: list[str]) -> list[str]:
    if shutil.which("c++filt") is None:
        return names
    output = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout
    short = re.compile(r"void gdcore::cuda::kernel<(.*)>\(.*\)$")
    return [
        short.sub(r"\1", line).replace("gdcore::", "").replace("cuda::", "")
        for line in output.splitlines()
    ]


def table(found: list[Kernel]) -> str:
    """One row a kernel: registers, by architecture, and shared memory in bytes."""
    architectures = sorted({k.architecture for k in found}, key=lambda a: int(a[3:]))
    names = sorted({k.name for k in found})
    lines = ["| kernel | " + " | ".join(architectures) + " | shared | spills |"]
    lines.append("|---|" + "---|" * (len(architectures) + 2))
    for label, name in sorted(zip(readable(names), names, strict=True)):
        own = {k.architecture: k for k in found if k.name == name}
        registers = [str(own[a].registers) if a in own else "" for a in architectures]
        shared = max(k.shared for k in own.values())
        spilled = sum(k.stack + k.spilled for k in own.values())
        lines.append(f"| `{label}` | " + " | ".join(registers) + f" | {shared} | {spilled} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--table", action="store_true", help="print registers and shared memory")
    options = parser.parse_args()
    found = kernels(options.log.read_text(errors="replace"))
    if not found:
        print(f"{options.log}: no kernel in it", file=sys.stderr)
        return 1
    if options.table:
        print(table(found))
    wrong = [k for k in found if k.stack or k.spilled]
    for k in wrong:
        print(
            f"{readable([k.name])[0]} for {k.architecture}: {k.stack} bytes of stack, "
            f"{k.spilled} of spills",
            file=sys.stderr,
        )
    print(f"{len(found)} kernels, {len(wrong)} with registers in memory")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
