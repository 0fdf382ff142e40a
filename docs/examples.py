"""Lets the API page show a docstring's ``Example:`` as code; Griffe knows it as ``Examples:``."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames the section as each object is read."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
