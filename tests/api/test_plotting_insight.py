"""What the pictures of curvature, sweeps, descents and fits show: the numbers that are drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gdcore
from gdcore import plotting
from gdcore._insight.figures import rate_figure

pytest.importorskip("matplotlib", reason="pictures need matplotlib")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

X = torch.tensor([[1.0], [2.0], [3.0]])
LOSS = nn.MSELoss()


def trained(model: nn.Module, lr: float, epochs: int = 40, **options: Any) -> gdcore.History:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return gdcore.fit(model, LOSS, optimizer, (X, 2 * X), epochs=epochs, **options)


def line(bias: bool = True) -> nn.Module:
    model = gdcore.nn.LinearRegression(bias=bias)
    for parameter in model.parameters():
        nn.init.constant_(parameter, -1.0)
    return model


def drawn(ax: Axes, label: str) -> tuple[Any, Any]:
    (found,) = [each for each in ax.lines if each.get_label() == label]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def labels(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_axes_that_are_given_are_drawn_on() -> None:
    model = line()
    found = gdcore.curvature(model, LOSS, (X, 2 * X))
    history = trained(model, 0.1, record_every=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    swept = gdcore.sweep(model, LOSS, optimizer, (X, X), lr=[0.01, 0.1], epochs=5)
    figure = Figure()
    for draw in (
        lambda ax: found.plot(ax),
        lambda ax: swept.plot(ax),
        lambda ax: plotting.history(history, ax=ax),
        lambda ax: plotting.descent(history, found, ax=ax),
        lambda ax: plotting.fit_line(model, (X, X), ax=ax),
    ):
        ax = figure.add_subplot()
        assert draw(ax) is ax
        assert ax.lines
        assert ax.get_xlabel()
        assert ax.get_ylabel()


def test_history() -> None:
    history = trained(line(), 0.1)
    ax = plotting.history(history)
    assert np.allclose(np.asarray(ax.lines[0].get_ydata()), history.loss.numpy())
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("epoch", "loss", "log")


def test_curvature_marks_the_best_rate_and_the_limit() -> None:
    found = gdcore.curvature(line(), LOSS, (X, X))
    ax = found.plot()
    rates, left = drawn(ax, "steepest direction")
    assert np.allclose(left, np.abs(1 - rates * found.largest_curvature))
    rates, left = drawn(ax, "flattest direction")
    assert np.allclose(left, np.abs(1 - rates * found.smallest_curvature))
    at, height = drawn(ax, f"largest stable, {rate_figure(found.largest_stable_lr())}")
    assert (at[0], height[0]) == (found.largest_stable_lr(), 1.0)
    (best,) = [each for each in ax.lines if str(each.get_label()).startswith("best, ")]
    assert best.get_xdata() == [found.best_lr]
    assert best.get_ydata() == [found.rate]


def test_curvature_of_one_direction_and_of_a_local_model() -> None:
    ax = gdcore.curvature(line(bias=False), LOSS, (X, X)).plot()
    assert labels(ax)[0] == "every direction"
    legendre = gdcore.nn.LegendreRegression()
    x = torch.linspace(-1, 1, 20)
    ax = gdcore.curvature(legendre, LOSS, (x, x)).plot()
    assert "near these parameters" in ax.get_xlabel()
    assert not any(label.startswith("best") for label in labels(ax))


def test_a_direction_that_bends_down_is_drawn_as_one() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    found = gdcore.curvature(network, LOSS, (X, X))
    assert found.smallest_curvature < 0
    ax = found.plot()
    assert "flattest direction" not in labels(ax)
    rates, left = drawn(ax, "direction that bends down most")
    assert np.allclose(left, 1 - rates * found.smallest_curvature)
    assert left[-1] > 1


def test_a_loss_without_curvature_has_no_limit_in_its_picture() -> None:
    ax = gdcore.curvature(line(), nn.L1Loss(), (X, X)).plot()
    assert np.isfinite(ax.get_xlim()).all()
    assert not any(label.startswith("largest stable") for label in labels(ax))


def test_many_directions_are_thinned() -> None:
    x = torch.randn(300, 150)
    ax = gdcore.curvature(nn.Linear(150, 1), LOSS, (x, x[:, :1])).plot()
    assert len(ax.lines) < 130
    assert labels(ax).count("directions between") == 1


def swept(**options: Any) -> gdcore.Sweep:
    model = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return gdcore.sweep(model, LOSS, optimizer, (X, 2 * X), **{"epochs": 60, **options})


def test_sweep_draws_a_line_for_each_momentum_and_its_limit() -> None:
    found = swept(lr=[0.001, 0.01, 0.1, 0.5], momentum=[0.0, 0.5])
    ax = plotting.sweep(found)
    for momentum in (0.0, 0.5):
        rates, final = drawn(ax, f"momentum {momentum:g}")
        assert rates.tolist() == [0.001, 0.01, 0.1]
        assert np.allclose(
            final,
            [run.final_loss for run in found if run.settings["momentum"] == momentum][:3],
        )
    crosses = [each for each in ax.lines if each.get_marker() == "x" and len(each.get_xdata())]
    assert [np.asarray(each.get_xdata()).tolist() for each in crosses] == [[0.5], [0.5]]
    heights = [float(np.asarray(each.get_ydata())[0]) for each in crosses]
    assert min(heights) > max(run.final_loss for run in found if run.settings["lr"] < 0.5)
    limit = gdcore.curvature(line(), LOSS, (X, X)).largest_stable_lr
    upright = [np.asarray(each.get_xdata()) for each in ax.lines]
    standing = [float(x[0]) for x in upright if len(x) == 2 and x[0] == x[1]]
    assert np.allclose(standing, [limit(0.0), limit(0.5)])
    assert {"diverging", "largest stable rate"} <= set(labels(ax))
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_sweep_without_rates_of_many_groups_and_all_lost() -> None:
    ax = plotting.sweep(swept(momentum=[0.1, 0.5, 0.9]))
    assert ax.get_xlabel() == "momentum"
    ax = plotting.sweep(swept(lr=[0.01, 0.1], momentum=np.linspace(0, 0.9, 12).tolist()))
    assert len(labels(ax)) < 10
    ax = plotting.sweep(swept(lr=[1e20, 1e25]))
    assert "diverging" in labels(ax)
    assert not len(ax.get_yticks())
    ax = plotting.sweep(swept())
    assert ax.get_xlabel() == "run"
    model = line()
    adam = torch.optim.Adam(model.parameters())
    ax = gdcore.sweep(model, LOSS, adam, (X, X), lr=[0.1, 0.2], epochs=3).plot()
    assert ax.get_xlabel() == "learning rate"


@pytest.mark.parametrize("x", [torch.linspace(0, 2, 9), torch.linspace(0, 2, 9)[:, None]])
def test_fit_line_follows_the_model(x: Tensor) -> None:
    ax = plotting.fit_line(lambda x: 3 * x + 1, (x, 3 * x), label="line")
    at, height = drawn(ax, "line")
    assert np.allclose(height, 3 * at + 1)
    assert at.min() < 0
    assert at.max() > 2
    at, height = drawn(ax, "data")
    assert np.allclose(height, 3 * at)
    with pytest.raises(ValueError, match="x: expected one variable"):
        plotting.fit_line(lambda x: x, (torch.zeros(4, 2), torch.zeros(4)))


def test_fit_line_takes_what_fit_takes() -> None:
    model = line()
    both = [
        plotting.fit_line(model, data)
        for data in ((X, 2 * X), torch.utils.data.TensorDataset(X, 2 * X))
    ]
    for label in ("data", "fitted"):
        one, other = (np.stack(drawn(ax, label)) for ax in both)
        assert np.array_equal(one, other)
    with pytest.raises(TypeError, match=r"^data: expected \(x, y\), .* got Tensor"):
        plotting.fit_line(model, X)


def test_the_animation_moves_from_the_start_to_the_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    model = line()
    history = trained(model, 0.1, record_every=1)
    before = [p.detach().clone() for p in model.parameters()]
    titles: list[str] = []
    with monkeypatch.context() as patch:
        set_title = Axes.set_title
        patch.setattr(
            Axes, "set_title", lambda ax, text: (titles.append(text), set_title(ax, text))[1]
        )
        ax = plotting.fit_animation(model, (X, 2 * X), history, tmp_path / "fit.gif", frames=8)
    assert titles[0] == "after 0 epochs"
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    with Image.open(tmp_path / "fit.gif") as moving:
        assert moving.size == (800, 450)
        assert moving.n_frames >= 8
        first = np.asarray(moving.convert("L"), dtype=int)
        moving.seek(moving.n_frames - 1)
        last = np.asarray(moving.convert("L"), dtype=int)
    assert (np.abs(first - last) > 50).sum() > 100
    at, height = drawn(ax, "fitted")
    with torch.no_grad():
        expected = model(torch.tensor(at, dtype=torch.float32)[:, None]).flatten()
    assert np.allclose(height, expected, atol=1e-5)
    assert ax.get_title() == titles[-1] == "after 40 epochs"
    with pytest.raises(ValueError, match="history: expected recorded parameters"):
        plotting.fit_animation(model, (X, X), trained(model, 0.1), tmp_path / "none.gif")
    assert not (tmp_path / "none.gif").exists()


def test_it_is_reached_from_the_package_without_an_import() -> None:
    assert gdcore.plotting is plotting
    assert {"descent", "fit_line", "history", "curvature", "sweep"} <= set(plotting.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gdcore.nothing  # noqa: B018
