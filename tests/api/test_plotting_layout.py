"""How pictures stand on their axes: legends, names and numbers that hide nothing, at any size."""

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from torch import nn

import gdcore
from gdcore import plotting
from gdcore.plotting.descents import told_apart

Draw: TypeAlias = Callable[[Axes | None], Axes]

LOSS = nn.MSELoss()
SIZES: list[tuple[int, int, tuple[float, float], str | None]] = [
    (2, 3, (12.0, 7.0), None),
    (2, 3, (12.0, 7.0), "constrained"),
    (1, 2, (8.0, 3.5), None),
    (1, 2, (8.0, 3.5), "constrained"),
]


def pictures() -> dict[str, Draw]:
    torch.manual_seed(0)
    x, y = torch.randn(60, 5) * torch.logspace(0, -1, 5), torch.randn(60, 1)
    model, summed = nn.Linear(5, 1, bias=False), nn.MSELoss(reduction="sum")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    options: Any = {"epochs": 60, "record_every": 1, "validation": (x, y + 0.1)}
    history = gdcore.fit(model, LOSS, optimizer, (x, y), **options)
    pair = nn.Linear(2, 1, bias=False)
    momenta = [0.0, 0.3, 0.5, 0.7, 0.9]
    rates = torch.logspace(-3, 0.5, 12).tolist()
    swept = gdcore.sweep(
        pair,
        LOSS,
        torch.optim.SGD(pair.parameters(), lr=0.1),
        (x[:, :2], y),
        lr=rates,
        momentum=momenta,
        epochs=30,
    )
    two = gdcore.fit(
        pair,
        LOSS,
        torch.optim.SGD(pair.parameters(), lr=0.1),
        (x[:, :2], y),
        epochs=40,
        record_every=1,
    )
    in_plane = gdcore.curvature(pair, LOSS, (x[:, :2], y))
    slow = gdcore.curvature(model, LOSS, (x, y))
    steep = gdcore.curvature(model, summed, (100 * x, y))
    network = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    local = gdcore.curvature(network, LOSS, (x[:, :1], y))
    return {
        "history": history.plot,
        "exact": steep.plot,
        "local": local.plot,
        "sweep": swept.plot,
        "two": lambda ax: plotting.descent(two, in_plane, ax=ax),
        "many": lambda ax: plotting.descent(history, slow, ax=ax),
        "line": lambda ax: plotting.fit_line(network, (x[:, :1], y), ax=ax),
    }


PICTURES = pictures()


def drawn(ax: Axes) -> Bbox:
    """The axes' own place, once everything has been drawn."""
    ax.figure.figure.draw_without_rendering()
    return ax.get_window_extent()


def covered(ax: Axes) -> list[str]:
    """The curves on which the legend stands: those that enter its box, by matplotlib's own test."""
    legend = ax.get_legend()
    assert legend is not None
    box = legend.get_window_extent()
    found = []
    for line in ax.lines:
        path = line.get_path().transformed(line.get_transform())
        points = path.vertices[np.isfinite(path.vertices).all(1)]
        marked = line.get_marker() not in ("None", "", None)
        if (line.get_linestyle() != "None" and path.intersects_bbox(box, filled=False)) or (
            marked and any(box.contains(*point) for point in points)
        ):
            found.append(str(line.get_label()))
    for collection in ax.collections:
        for path in collection.get_paths():
            for part in path.to_polygons(collection.get_transform(), closed_only=False):
                if type(path)(part).intersects_bbox(box, filled=False):
                    found.append("contour")
    found += [text.get_text() for text in ax.texts if text.get_window_extent().overlaps(box)]
    return found


def check(ax: Axes) -> None:
    place = drawn(ax)
    legend = ax.get_legend()
    assert legend is not None
    box = legend.get_window_extent()
    assert place.x0 <= box.x0 < box.x1 <= place.x1 + 1
    assert place.y0 <= box.y0 < box.y1 <= place.y1 + 1
    assert covered(ax) == []
    for text in ax.texts:
        word = text.get_window_extent()
        assert word.x1 <= place.x1 + 1, text.get_text()
    assert ax.xaxis.label.get_window_extent().width <= 1.1 * place.width
    assert ax.yaxis.label.get_window_extent().height <= 1.1 * place.height


@pytest.mark.parametrize("name", PICTURES)
def test_legends_cover_nothing_and_stay_within(name: str) -> None:
    check(PICTURES[name](None))
    for rows, columns, size, layout in SIZES:
        figure = Figure(figsize=size, layout=layout)
        axes = figure.subplots(rows, columns).ravel()
        ax = PICTURES[name](axes[0])
        assert ax is axes[0]
        check(ax)
        assert len(ax.get_legend().get_texts()) == len(ax.get_legend_handles_labels()[0])


def test_entries_are_left_out_where_all_would_not_fit() -> None:
    figure = Figure(figsize=(1.6, 1.2))
    ax = PICTURES["sweep"](figure.add_subplot())
    drawn(ax)
    legend = ax.get_legend()
    assert legend is None or len(legend.get_texts()) < len(ax.get_legend_handles_labels()[0])


@pytest.mark.parametrize("name", PICTURES)
def test_given_axes_look_like_new_ones(name: str) -> None:
    looks = []
    for ax in (PICTURES[name](None), PICTURES[name](Figure().add_subplot())):
        drawn(ax)
        spines = {side: spine.get_visible() for side, spine in ax.spines.items()}
        grid = {(line.get_visible(), line.get_color()) for line in ax.get_xgridlines()}
        looks.append((spines, grid, ax.get_axisbelow()))
    assert looks[0] == looks[1]
    assert looks[0][0] == {"left": True, "bottom": True, "top": False, "right": False}


def test_scales_stand_in_the_names() -> None:
    """Rates of 1e-6 are numbered 1, 2, 3; their factor is beside their unit, not over it."""
    ax = PICTURES["exact"](Figure().add_subplot())
    drawn(ax)
    assert ax.xaxis.get_offset_text().get_text() == ""
    assert "(10⁻⁶ parameter² / loss)" in ax.get_xlabel()
    shown = [float(text.get_text()) for text in ax.get_xticklabels()]
    assert np.allclose(shown, np.asarray(ax.get_xticks()) * 1e6)
    ax.set_xlim(0, 0.5)
    drawn(ax)
    assert ax.get_xlabel() == "learning rate (parameter² / loss)"
    ax.set_xlim(3.0, 3.000001)
    ax.set_xlabel("rate")
    drawn(ax)
    found = re.fullmatch(r"rate - (3[.0-9]*) \(10⁻⁶\)", ax.get_xlabel())
    assert found is not None
    shown = [float(text.get_text().replace("\u2212", "-")) for text in ax.get_xticklabels()]
    assert np.allclose(float(found[1]) + 1e-6 * np.asarray(shown), ax.get_xticks(), 0, 1e-9)


def test_words_fit_their_strip() -> None:
    figure = Figure(figsize=(12.0, 7.0))
    ax = PICTURES["exact"](figure.subplots(2, 3)[0, 2])
    drawn(ax)
    (word,) = [text for text in ax.texts if text.get_text() == "diverges"]
    strip = ax.patches[0].get_window_extent()
    box = word.get_window_extent()
    assert strip.x0 <= box.x0
    assert box.x1 <= strip.x1


def test_labels_of_neighbours_differ() -> None:
    assert told_apart(np.array([0.1, 0.25, 0.5])) == ["0.1", "0.25", "0.5"]
    assert told_apart(np.array([0.85312, 0.85313, 0.86])) == ["0.85312", "0.85313", "0.86"]
    for name in ("two", "many"):
        (contours,) = PICTURES[name](None).collections
        assert isinstance(contours, ContourSet)
        levels = {str(level) for level in contours.labelCValues}
        assert len(levels) > 1
        assert len({text.get_text() for text in contours.labelTexts}) == len(levels)


def test_a_loss_is_called_one_everywhere() -> None:
    for name in ("history", "sweep"):
        assert PICTURES[name](None).get_ylabel().startswith("loss")
    assert plotting.loss_curve([2.0, 1.0]).get_ylabel() == "loss"


def test_a_second_history_on_the_same_axes_is_seen_whole() -> None:
    """Room for a legend must not hold the limits for what is drawn afterwards."""
    ax = Figure(figsize=(3.0, 2.0)).add_subplot()
    for top in (1.0, 100.0):
        plotting.loss_curve([top, top, top], ax=ax, label=f"a flat loss of {top:g}, all along")
    drawn(ax)
    assert ax.get_ylim()[0] <= 1.0
    assert ax.get_ylim()[1] >= 100.0
