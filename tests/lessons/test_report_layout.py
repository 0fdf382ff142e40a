"""How a browser lays the report out: nothing scrolls upwards beside a formula."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gdcore.lessons.running import Report

pytest.importorskip("matplotlib", reason="the page needs the report extra")
pytest.importorskip("latex2mathml", reason="the page needs the report extra")
pytest.importorskip("pygments", reason="the page needs the report extra")

from gdcore.lessons import page
from gdcore.lessons.language import language

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

PROBE = """<script>
const boxes = [...document.querySelectorAll(".scroll")];
const wrong = boxes.filter(box => {
  const style = getComputedStyle(box);
  const borders = parseFloat(style.borderLeftWidth) + parseFloat(style.borderRightWidth);
  return box.offsetWidth - box.clientWidth - borders > 0.5 || box.scrollHeight > box.clientHeight;
});
document.title = `${boxes.length} boxes, ${wrong.length} wrong`;
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_scrolls_upwards(reports: dict[str, Report], tmp_path: Path, width: int) -> None:
    shown = [reports[name] for name in ("deeper_gd_manual", "learning_rate", "legendre")]
    text = page.page(shown, language("en"), with_seed=True)
    (tmp_path / "page.html").write_text(text.replace("</body>", PROBE), encoding="utf-8")
    assert CHROMIUM is not None
    said = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path}/profile",
            f"--window-size={width},3000",
            "--dump-dom",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r"<title>(\d+) boxes, (\d+) wrong", said.stdout)
    assert found is not None
    assert int(found[1]) > 15
    assert found[2] == "0"
