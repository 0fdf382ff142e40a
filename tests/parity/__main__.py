"""``python -m tests.parity`` writes docs/parity.md from what is measured on this machine."""

from .page import PAGE, text

PAGE.parent.mkdir(exist_ok=True)
PAGE.write_text(text())
