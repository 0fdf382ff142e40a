"""``python -m gdcore``: the lessons, and how this copy of gdcore was built."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from gdcore import build_info, lessons


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = argparse.ArgumentParser(prog="gdcore", description=sys.modules["gdcore"].__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    about = "run the lessons and compare them with their seeds"
    lessons.add_arguments(commands.add_parser("lessons", help=about, description=about))
    commands.add_parser("info", help="say how gdcore was built and what it runs on")
    options = parser.parse_args(arguments)
    try:
        return lessons.run(options) if options.command == "lessons" else _info()
    except BrokenPipeError:
        # The reader of a pipe has seen enough; nothing more can be written, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _info() -> int:
    entries = dict(_entries(build_info()))
    width = max(map(len, entries))
    for name, value in entries.items():
        print(f"{name:{width}}  {value}")
    return 0


def _entries(info: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every entry on a line of its own, those of a nested mapping under both names."""
    for key, value in info.items():
        name = prefix + key.replace("_", " ")
        if isinstance(value, Mapping):
            yield from _entries(value, f"{name}, ")
        else:
            yield name, _readable(value)


def _readable(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_readable, value)) or "none"
    return "none" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
