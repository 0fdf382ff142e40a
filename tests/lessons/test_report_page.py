"""`lessons --report`: one page that needs nothing beside it, in English and in Korean."""

from __future__ import annotations

import base64
import html
import importlib.util
import re
import struct
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gdcore.lessons import LESSONS
from gdcore.lessons.running import Report

from .conftest import Command

pytest.importorskip("matplotlib", reason="the page needs the report extra")
pytest.importorskip("latex2mathml", reason="the page needs the report extra")
pytest.importorskip("pygments", reason="the page needs the report extra")

from gdcore.lessons import page
from gdcore.lessons.language import FILES, language
from gdcore.lessons.sources import side_by_side

VOID = {"meta", "link", "img", "br", "hr"}
LOADS = {"src", "srcset", "data", "poster", "action", "formaction", "background"}


class Reader(HTMLParser):
    """Reads a page as strictly as a checker: every tag closed in turn, every id once."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), attrs
        self.tags.append((tag, dict(attrs)))
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module", params=FILES)
def code(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def text(reports: dict[str, Report], code: str) -> str:
    return page.page(list(reports.values()), language(code), with_seed=True)


@pytest.fixture(scope="module")
def read(text: str) -> Reader:
    return Reader(text)


def test_the_reader_finds_what_is_wrong() -> None:
    for wrong in ("<p><b></p></b>", "<p>", "</p>", '<p id="a" id="b"></p>'):
        with pytest.raises(AssertionError):
            Reader(wrong)


def test_it_is_well_formed_and_every_link_leads_somewhere(read: Reader, code: str) -> None:
    assert len(set(read.ids)) == len(read.ids)
    assert read.all("html") == [{"lang": code}]
    links = [attributes["href"] or "" for attributes in read.all("a")]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(read.ids)
    labels = [a["aria-labelledby"] for _, a in read.tags if "aria-labelledby" in a]
    assert set(labels) <= set(read.ids)


def test_nothing_is_loaded_from_elsewhere(read: Reader, text: str) -> None:
    assert not read.all("script")
    assert "@import" not in text
    assert "url(" not in text
    for _, attributes in read.tags:
        for name in LOADS & attributes.keys():
            assert (attributes[name] or "").startswith("data:image/png;base64,")
    assert [attributes["href"] for attributes in read.all("link")] == ["data:,"]
    # The name of MathML's namespace is a name, and nothing else is an address.
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/1998/Math/MathML"}


def test_every_lesson_has_all_its_parts(
    read: Reader, text: str, reports: dict[str, Report], code: str
) -> None:
    words = language(code)
    assert [a["id"] for a in read.all("article")] == list(LESSONS)
    articles = re.split(r"<article ", text)[1:]
    for article, report in zip(articles, reports.values(), strict=True):
        lesson = report.lesson
        said = html.unescape(re.sub(r"<[^>]+>", "", article))
        assert words.title(lesson) in said
        assert words.text(lesson) in said
        assert "\n".join(report.outcomes[report.shown].lines[:3]) in said
        assert article.count("<math ") >= 1
        assert article.count("<img ") == 1
        assert len(re.findall(r'class="caption">[^<]{30,}</p>', article)) == 1
        run = report.outcomes[report.shown].run
        says = [words.say(saying) for saying in lesson.says(run, report.settings)]
        assert says
        for sentence in says:
            assert sentence in said
        assert said.count("✓") == len(report.outcomes)


def test_the_code_is_that_which_runs(text: str, reports: dict[str, Report]) -> None:
    said = html.unescape(re.sub(r"<[^>]+>", "", text))
    for report in reports.values():
        own, shared = side_by_side(report.lesson.versions)
        assert set(own) == set(report.lesson.versions)
        for source in [*own.values(), *([shared] if shared else [])]:
            assert source.startswith(("def ", "class ", "@"))
            assert source in said
    assert "torch.optim" not in side_by_side(LESSONS["deeper_gd_sgd"].versions)[0]["manual"]
    assert "cost.backward()" in side_by_side(LESSONS["deeper_gd_sgd"].versions)[0]["autograd"]
    # A helper through a module, through a closure, and an attribute that only sounds like one.
    assert "def fit_line" in side_by_side(LESSONS["nn_linear"].versions)[0]["fused"]
    assert "linear_mse_loss" in side_by_side(LESSONS["lab_module"].versions)[0]["fused"]
    assert "def autograd" not in side_by_side(LESSONS["study_hours_errors"].versions)[0]["fused"]


def test_every_picture_has_its_size_and_says_what_it_shows(read: Reader) -> None:
    images = read.all("img")
    assert len(images) == len(LESSONS)
    for image in images:
        assert len(image["alt"] or "") > 12
        data = base64.b64decode((image["src"] or "").partition(",")[2])
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        size = struct.unpack(">II", data[16:24])
        assert size == (int(image["width"] or 0), int(image["height"] or 0))


def test_each_version_has_its_time(read: Reader, reports: dict[str, Report]) -> None:
    times = len(re.findall(r"\d (?:ms|s )", read.text))
    assert times >= 2 * sum(len(report.outcomes) for report in reports.values())


def test_both_languages_have_every_word_and_the_same_numbers() -> None:
    english, korean = language("en"), language("ko")
    assert set(korean.titles) == set(korean.teaches) == set(LESSONS)
    for part in ("words", "captions", "sayings"):
        ours, theirs = getattr(english, part), getattr(korean, part)
        assert ours.keys() == theirs.keys()
        for name in ours:
            places = [set(re.findall(r"\{(\w+)\}", text)) for text in (ours[name], theirs[name])]
            assert places[0] == places[1], name
    for texts in (korean.titles, korean.teaches, korean.sayings, korean.captions):
        assert all(re.search("[가-힣]", text) for text in texts.values())


def test_the_command_writes_it(lessons: Command, tmp_path: Path) -> None:
    into = tmp_path / "new" / "pages"
    said = lessons("autograd", "zero_grad", "--report", into, "--language", "ko")
    assert said.status == 0
    assert said.out.endswith(f"Report: {into / 'lessons.ko.html'}\n")
    assert [path.name for path in into.iterdir()] == ["lessons.ko.html"]
    written = (into / "lessons.ko.html").read_text("utf-8")
    assert [a["id"] for a in Reader(written).all("article")] == ["autograd", "zero_grad"]
    assert lessons("autograd", "--report", into).status == 0
    assert (into / "lessons.en.html").exists()


def test_a_run_that_diverges_or_disagrees_is_told(
    lessons: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = lessons("linear_regression", "multivariate_nn", "--lr", 3, "--report", tmp_path)
    assert said.status == 0, said.out
    text = (tmp_path / "lessons.en.html").read_text("utf-8")
    assert "At lr 3 this run diverges: by step " in text
    assert "Compared with each other:" in text
    from gdcore.lessons import golden

    entries = {**golden.all_golden(), "autograd": {"gradient": 8.5}}
    monkeypatch.setattr(golden, "all_golden", lambda: entries)
    assert lessons("autograd", "--report", tmp_path).status == 1
    read = Reader((tmp_path / "lessons.en.html").read_text("utf-8"))
    assert "DISAGREES" in read.text
    assert "expected: 수식을 w로 미분한 값 : 8.5" in read.text


def test_what_is_missing_is_said_first(
    lessons: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = lessons("autograd", "--language", "ko")
    assert (said.status, said.out) == (2, "")
    assert "--language is that of --report DIR, which was not given" in said.err
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "latex2mathml" else there(name)
    )
    said = lessons("autograd", "--report", tmp_path)
    assert (said.status, said.out) == (2, "")
    assert said.err == (
        "gdcore lessons: --report needs latex2mathml: "
        "pip install -c constraints.txt 'gdcore[report]'\n"
    )
