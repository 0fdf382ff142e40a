"""The documentation runs: every docstring's example, and the README's Python as it is written."""

import contextlib
import doctest
import importlib
import inspect
import io
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import gdcore

# Examples are found by importing every module.
pytest.importorskip("gdcore.lessons.page", reason="the examples need the report extra")
README = Path(__file__).parents[2] / "README.md"


def modules() -> list[ModuleType]:
    """Every module of the package that can be imported without running anything."""
    names = [m.name for m in pkgutil.walk_packages(gdcore.__path__, "gdcore.")]
    left_out = ("gdcore._core", "gdcore.__main__")
    return [gdcore] + [importlib.import_module(name) for name in names if name not in left_out]


def examples() -> dict[str, doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {}
    for module in modules():
        for test in finder.find(module, extraglobs={}):
            if test.examples:
                found[test.name] = test
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_docstring_examples(name: str) -> None:
    """With nothing but torch and gdcore imported, as a reader would have them."""
    test = EXAMPLES[name]
    test.globs = {"torch": torch, "gdcore": gdcore}
    report = io.StringIO()
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=report.write)
    assert runner.failures == 0, report.getvalue()
    assert runner.tries == len(test.examples)


def public() -> dict[str, Any]:
    found = {}
    for module in (gdcore, gdcore.functional, gdcore.metrics, gdcore.nn, gdcore.optim):
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value):
                found[f"{module.__name__}.{name}"] = value
    return found


@pytest.mark.parametrize("name", public())
def test_public_docstrings_are_whole(name: str) -> None:
    """One line first; what is taken, given back and raised; an example (errors need none)."""
    value = public()[name]
    doc = inspect.getdoc(value)
    assert doc, f"{name} has no docstring"
    first, *rest = doc.splitlines()
    assert first.endswith("."), first
    assert not rest or rest[0] == "", "one line, then a blank one"
    if inspect.isclass(value) and issubclass(value, Exception):
        return
    assert "Example:\n    >>> " in doc
    if name != "gdcore.build_info" and not name.endswith(("History", "Compressed")):
        assert "Reference:\n" in doc
    if inspect.isfunction(value):
        assert "Raises:" in doc or not inspect.signature(value).parameters
        arguments = inspect.signature(value).parameters
        assert "Returns:" in doc
        for argument in arguments:
            assert re.search(rf"^    {argument}: ", doc, re.MULTILINE), f"{name}: {argument}"


def blocks(text: str) -> list[tuple[str, str, str]]:
    """Each fenced block with its language and the language of the next, with nothing between."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
    found = list(fence.finditer(text))
    result = []
    for i, block in enumerate(found):
        stated = ""
        following = found[i + 1] if i + 1 < len(found) else None
        if following is not None and not text[block.end() : following.start()].strip():
            stated = following[2] if following[1] in {"", "text", "output"} else ""
        result.append((block[1], block[2], stated))
    return result


def stated_in_comments(program: str) -> list[str]:
    """What `print(…)  # so` says will be printed."""
    return re.findall(r"^print\(.*\)  # (.+)$", program, re.MULTILINE)


def run_page(page: Path, seed: int) -> int:
    """Run a page's Python blocks in order in one namespace; how many state what they print.

    What they print is what is stated, whatever the seed: in the block of plain text right after,
    or in a comment after each print.
    """
    programs = [b for b in blocks(page.read_text(encoding="utf-8")) if b[0] in {"python", "py"}]
    torch.manual_seed(seed)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    promises = 0
    for _, program, stated in programs:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(program, str(page), "exec"), namespace)
        lines = printed.getvalue().splitlines()
        comments = stated_in_comments(program)
        if stated:
            assert lines == stated.splitlines()
        elif comments:
            assert lines == comments
        promises += bool(stated or comments)
    return promises


@pytest.mark.parametrize("seed", [1, 2])
def test_readme_python_runs_as_written(seed: int) -> None:
    assert run_page(README, seed), "no example of the README states what it prints"


def test_blocks_are_read_as_a_reader_would() -> None:
    """The test of the test: languages, what follows at once, what does not."""
    text = "```python\na\n```\n\n```text\nb\n```\n\nwords\n\n```sh\nc\n```\nwords\n```\nd\n```\n"
    assert blocks(text) == [
        ("python", "a\n", "b\n"),
        ("text", "b\n", ""),
        ("sh", "c\n", ""),
        ("", "d\n", ""),
    ]
    assert stated_in_comments("x = 1\nprint(x)  # 1\nprint(2 * x)  # 2\n") == ["1", "2"]
