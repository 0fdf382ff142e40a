"""Every lesson draws its picture, and the pictures show what was computed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from gdcore.lessons import LESSONS
from gdcore.lessons.running import Report

from .conftest import Command

pytest.importorskip("matplotlib", reason="pictures need matplotlib")

from gdcore import plotting


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:24])
    return width, height


@pytest.mark.parametrize("name", LESSONS)
def test_every_lesson_draws(reports: dict[str, Report], tmp_path: Path, name: str) -> None:
    report = reports[name]
    figure = report.lesson.draw(report.outcomes[report.shown].run, report.settings)
    assert figure.get_suptitle()
    for ax in figure.axes:
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        assert ax.lines
    # Small, for speed; the command's own size is tested below.
    figure.savefig(tmp_path / "picture.png", dpi=50)
    width, height = png_size(tmp_path / "picture.png")
    assert 0.4 * width < height < 0.8 * width


def test_versions_that_keep_some_costs_only_draw_those(reports: dict[str, Report]) -> None:
    report = reports["linear_regression"]
    figure = report.lesson.draw(report.outcomes["manual"].run, report.settings)
    (curve,) = figure.axes[1].lines
    assert curve.get_linestyle() == ":"
    assert np.asarray(curve.get_xdata()).tolist() == list(range(0, 2000, 100))


def test_the_command_writes_a_picture_per_lesson(lessons: Command, tmp_path: Path) -> None:
    said = lessons("autograd", "learning_rate", "--plot", tmp_path / "new" / "pictures")
    assert said.status == 0
    written = sorted(path.name for path in (tmp_path / "new" / "pictures").iterdir())
    assert written == ["autograd.png", "learning_rate.png"]
    for name in written:
        assert png_size(tmp_path / "new" / "pictures" / name)[0] == 1600


def test_a_diverging_run_is_drawn(lessons: Command, tmp_path: Path) -> None:
    names = ("learning_rate", "linear_regression", "legendre", "multivariate_nn", "minibatch")
    said = lessons(*names, "--lr", 3, "--epochs", 15, "--plot", tmp_path, "--backend", "fused")
    assert said.status == 0, said.out
    assert len(list(tmp_path.iterdir())) == len(names)


def test_the_parabola_passes_through_the_steps() -> None:
    x, y = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0])
    ax = plotting.cost_parabola(x, y, [0.0, 1.4, 0.84])
    curve, steps = ax.lines
    w, heights = np.asarray(steps.get_xdata()), np.asarray(steps.get_ydata())
    assert w.tolist() == [0.0, 1.4, 0.84]
    assert np.allclose(heights, 14 / 3 * (w - 1) ** 2)
    assert np.allclose(
        np.asarray(curve.get_ydata()), 14 / 3 * (np.asarray(curve.get_xdata()) - 1) ** 2
    )


def test_a_diverging_descent_is_cut_where_its_steps_would_vanish() -> None:
    weights = [1.0 - (-4.0) ** step for step in range(20)]
    ax = plotting.cost_parabola([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], weights)
    assert len(np.asarray(ax.lines[1].get_xdata())) == 2
    ax = plotting.cost_parabola([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [])
    assert len(np.asarray(ax.lines[1].get_xdata())) == 0


def test_the_loss_is_on_a_logarithmic_scale_only_where_it_is_positive() -> None:
    assert plotting.loss_curve([1.0, 0.1]).get_yscale() == "log"
    assert plotting.loss_curve([1.0, 0.0]).get_yscale() == "linear"
