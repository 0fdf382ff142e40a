"""The pages of docs/: their Python runs as it is written, and every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..api.test_docs_run import blocks, run_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
WITH_PYTHON = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_python_runs_as_written(page: Path, seed: int) -> None:
    assert run_page(page, seed), "no example of the page states what it prints"


def test_the_pages_that_a_reader_starts_from_have_examples() -> None:
    names = {page.stem for page in WITH_PYTHON}
    assert names >= {"index", "getting-started", "choosing", "recognition", "numerics", "curvature"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_has_its_language(page: Path) -> None:
    languages = {language for language, _, _ in blocks(page.read_text(encoding="utf-8"))}
    assert languages <= {"python", "text", "sh"}


def test_every_page_is_in_the_site_and_none_is_missing() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": ([\w-]+\.md)$", site, re.MULTILINE))
    assert listed == {page.name for page in PAGES}
