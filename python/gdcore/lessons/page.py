"""The lessons as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import io
import platform
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from latex2mathml.converter import convert
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from .formulas import FORMULAS
from .language import Language, language
from .lesson import BACKENDS, Run
from .report import shortened, speed_up, time_text
from .running import Report
from .sayings import shown
from .sources import side_by_side

LIGHT, DARK = "xcode", "github-dark"
DPI = 150  # half as many again as the page shows
_CODE = HtmlFormatter(nowrap=True)


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, its size in pixels, and words for it and on what it shows."""

    uri: str
    width: int
    height: int
    alt: str
    caption: str


def write(reports: list[Report], directory: Path, code: str, *, with_seed: bool) -> Path:
    """Write ``lessons.<language>.html`` and return its path.

    Args:
        reports: The lessons that were run.
        directory: Where; it must be there.
        code: ``en`` or ``ko``.
        with_seed: Whether they were compared with their seeds or with each other.
    """
    path = directory / f"lessons.{code}.html"
    path.write_text(page(reports, language(code), with_seed=with_seed), encoding="utf-8")
    return path


def page(reports: list[Report], words: Language, *, with_seed: bool) -> str:
    """The page's HTML."""
    here = resources.files(__package__)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(here.joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        w=words.words,
        lang=words.code,
        style=Markup(here.joinpath("page.css").read_text(encoding="utf-8") + _code_style()),
        measured=_measured(words),
        backends=BACKENDS,
        lessons=[_lesson(report, words) for report in reports],
        compared="seed" if with_seed else "other",
    )


def _code_style() -> str:
    """The colours of the code, for light and for dark screens."""
    light, dark = (HtmlFormatter(style=style).get_style_defs(".code") for style in (LIGHT, DARK))
    return f"\n{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def _measured(words: Language) -> str:
    machine = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    threads = torch.get_num_threads()
    return words.words["measured"].format(machine=machine, torch=torch.__version__, threads=threads)


def _lesson(report: Report, words: Language) -> dict[str, Any]:
    lesson, outcome = report.lesson, report.outcomes[report.shown]
    run = outcome.run
    sources, shared = side_by_side({name: lesson.versions[name] for name in report.outcomes})
    says = lesson.says(run, report.settings)
    closing = lesson.closing(run, report.settings) if run.rows else []
    return {
        "name": lesson.name,
        "title": words.title(lesson),
        "teaches": words.text(lesson),
        "settings": _settings(report, words),
        "formulas": [Markup(convert(tex, display="block")) for tex in FORMULAS[lesson.name]],
        "lines": "\n".join(shortened(outcome.lines)),
        "lines_language": _language_of(outcome.lines),
        "closing": [words.say(saying) for saying in closing],
        "diverged": _diverged(report, run, words),
        "outcomes": report.outcomes,
        "agrees": report.agrees,
        "picture": _picture(report, words),
        "sources": {name: _highlighted(text) for name, text in sources.items()},
        "shared": _highlighted(shared) if shared else None,
        "times": {name: time_text(one.run.seconds) for name, one in report.outcomes.items()},
        "speed_up": speed_up(report),
        "says": [words.say(saying) for saying in says],
    }


def _settings(report: Report, words: Language) -> str | None:
    settings = report.settings
    if "lr" not in report.lesson.options:
        return None
    rates = ", ".join(shown(rate) for rate in settings.rates.values())
    return words.words["settings"].format(lr=rates, epochs=settings.epochs, rows=len(settings.y))


def _language_of(lines: list[str]) -> str:
    return "ko" if any("가" <= letter <= "힣" for line in lines for letter in line) else "en"


def _diverged(report: Report, run: Run, words: Language) -> str | None:
    if run.diverged is None:
        return None
    return words.words["diverged"].format(lr=shown(report.settings.lr), step=run.diverged)


def _highlighted(source: str) -> Markup:
    return Markup(highlight(source, PythonLexer(), _CODE))


def _picture(report: Report, words: Language) -> Picture:
    run = report.outcomes[report.shown].run
    with np.errstate(over="ignore"):  # an axis may end at the largest number there is
        figure = report.lesson.draw(run, report.settings)
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=DPI)
    width, height = figure.get_size_inches() * DPI
    uri = "data:image/png;base64," + base64.b64encode(written.getvalue()).decode("ascii")
    alt = words.words["picture_of"].format(title=words.title(report.lesson))
    return Picture(uri, round(width), round(height), alt, _caption(report, run, words))


def _caption(report: Report, run: Run, words: Language) -> str:
    # The function that draws it says what kind of picture it is.
    kind = report.lesson.draw.__qualname__.partition(".")[0]
    costs = [row.cost for row in run.rows if "cost" in row.values]
    ends = {"first": shown(costs[0]), "last": shown(costs[-1])} if costs else {}
    return words.captions[kind].format(**ends)
