"""The words of a language: ``english.json`` and ``korean.json`` hold them."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from .lesson import Lesson
from .sayings import THIN, Saying

FILES = {"en": "english.json", "ko": "korean.json"}


@dataclass(frozen=True)
class Language:
    """A language's words.

    Args:
        code: As in HTML's ``lang``.
        words: Headings and labels, some with places for numbers.
        captions: What each kind of picture shows, for those who cannot see it.
        sayings: What the curvature says, with places for the numbers.
        titles: By lesson; empty for English, whose lessons have their own.
        teaches: As ``titles``.
    """

    code: str
    words: Mapping[str, str]
    captions: Mapping[str, str]
    sayings: Mapping[str, str]
    titles: Mapping[str, str]
    teaches: Mapping[str, str]

    def title(self, lesson: Lesson) -> str:
        """The title as a heading, whose numbers no line break tears apart."""
        own = lesson.title
        first, _, _ = own.partition(" ")
        if first == "a" or (first.isalpha() and len(first) > 1):  # a word, and no formula
            own = own[0].upper() + own[1:]
        title = self.titles.get(lesson.name, _raised(own))
        return re.sub(r"(?<=\d) (?=\d{3}\b)", THIN, title)

    def text(self, lesson: Lesson) -> str:
        return self.teaches.get(lesson.name, _raised(lesson.teaches))

    def say(self, saying: Saying) -> str:
        return self.sayings[saying.name].format(**saying.numbers)


def _raised(text: str) -> str:
    """w^2 as w²: a page has the signs that a terminal may not."""
    return text.replace("^2", "²").replace("^3", "³")


@functools.cache
def language(code: str) -> Language:
    """The words of ``en`` or ``ko``."""
    text = resources.files(__package__).joinpath(FILES[code]).read_text(encoding="utf-8")
    parts = json.loads(text)
    return Language(
        code,
        parts["words"],
        parts["captions"],
        parts["sayings"],
        parts.get("titles", {}),
        parts.get("teaches", {}),
    )
