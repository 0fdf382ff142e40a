"""The history as an object: put together, as plain data, as text, as a picture."""

import json
from typing import Any

import pytest
import torch
from torch import nn

import gdcore

from .training_cases import line

pytestmark = pytest.mark.usefixtures("device")


def fit(epochs: int = 6, **options: Any) -> gdcore.History:
    torch.manual_seed(0)
    model, x, y = line(dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if options.pop("validated", False):
        options.update(validation=(x, 2 * y), metrics=["r2"], validate_every=3)
    options = {"epochs": epochs, "method": "stepwise", **options}
    return gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), **options)


def test_one_after_the_other() -> None:
    options: Any = {"record_every": 2, "validated": True, "record_steps": True}
    first, second = fit(6, **options), fit(5, **options)
    both = first + second
    assert both.loss.tolist() == [*first.loss.tolist(), *second.loss.tolist()]
    assert both.lr.tolist() == [0.1] * 11
    assert both.seconds == first.seconds + second.seconds
    assert both.recorded_epochs == range(0, 12, 2)
    assert both.validated_epochs == range(0, 12, 3)
    assert both.step_loss is not None
    assert torch.equal(both.step_loss, both.loss)
    for name in ("weight", "bias"):
        assert torch.equal(both.parameters[name][3:], second.parameters[name])
    assert both.validation.keys() == {"loss", "r2"}
    with pytest.raises(ValueError, match="multiple of 2, got 5"):
        second + first
    with pytest.raises(ValueError, match=r"^record_every: expected .*got 2 and None"):
        first + fit(6)
    with pytest.raises(ValueError, match=r"^validate_every: expected .*got None and 3"):
        fit(6) + fit(6, validated=True)
    with pytest.raises(TypeError):
        first + 1  # type: ignore[operator]


@pytest.mark.parametrize(("first", "second"), [(50, 50), (99, 1), (1, 49), (100, 30)])
def test_two_fits_leave_what_one_leaves(first: int, second: int) -> None:
    """Also where records are so rare that the second fit's first epoch is none of theirs."""
    model, x, y = line(dtype=torch.float64)

    def fits(*counts: int) -> list[gdcore.History]:
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        options: Any = {"record_every": 100, "validation": (x, y), "validate_every": 50}
        options["method"] = "stepwise"  # what is chosen depends on the epochs
        return [
            gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=n, **options) for n in counts
        ]

    one, two = fits(first, second)
    both, (whole,) = one + two, fits(first + second)
    assert torch.equal(both.loss, whole.loss)
    assert both.recorded_epochs == whole.recorded_epochs
    assert both.validated_epochs == whole.validated_epochs
    for kept in ("parameters", "validation"):
        mine, theirs = getattr(both, kept), getattr(whole, kept)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(("first", "second"), [(5, 2), (1, 6), (4, 3)])
def test_records_that_are_missing(first: int, second: int) -> None:
    """Of epoch 6, which is none that the second fit has recorded."""
    with pytest.raises(ValueError, match=f"^record_every: .* multiple of 6, got {first}"):
        fit(first, record_every=6) + fit(second, record_every=6)


def test_as_plain_data() -> None:
    history = fit(5, record_every=2, validated=True)
    values = json.loads(json.dumps(history.to_dict()))
    assert values["loss"] == history.loss.tolist()
    assert values["lr"] == [0.1] * 5
    assert values["recorded_epochs"] == [0, 2, 4]
    assert values["parameters"]["bias"] == history.parameters["bias"].tolist()
    assert values["validated_epochs"] == [0, 3]
    assert values["validation"]["r2"] == history.validation["r2"].tolist()
    assert values["step_loss"] is None
    assert values["plan"] == str(history.plan)
    assert values["stopped"] is False
    assert values["start"]["bias"] == history.start["bias"].tolist()
    attributes = {name for name in vars(history) if not name.startswith("_")}
    assert set(values) == {*attributes, "recorded_epochs", "validated_epochs"}


def test_as_text() -> None:
    assert repr(fit(1)).startswith("History(1 epoch, loss ")
    shown = repr(fit(5, validated=True))
    for part in ("5 epochs", "validation r2", " s, stepwise)"):
        assert part in shown
    html = fit(50, validated=True)._repr_html_()
    for part in ("<table>", "50", "validation r2", "stepwise", "<svg", "polyline"):
        assert part in html
    for epochs in (0, 1, 2):
        assert "<table>" in fit(epochs)._repr_html_()
    assert "<script>" not in (fit(1) + fit(1))._repr_html_()


def test_what_it_shows_is_escaped() -> None:
    history = gdcore.History(torch.ones(2), {}, None, 1.0, plan=Plan())
    assert "&lt;lambda&gt;" in history._repr_html_()


class Plan:
    method = "eager"

    def __str__(self) -> str:
        return "eager: got <lambda>"


def test_as_a_picture() -> None:
    pytest.importorskip("matplotlib", reason="pictures need the report extra")
    ax = fit(9, validated=True).plot()
    lines = ax.get_lines()
    assert [len(line.get_xdata()) for line in lines] == [9, 3]  # type: ignore[arg-type]
    assert list(lines[1].get_xdata()) == [0, 3, 6]
    assert fit(9).plot(ax=ax) is ax


def test_rates_of_several_groups() -> None:
    model, x, y = line(dtype=torch.float64)
    weight, bias = model.parameters()
    optimizer = torch.optim.SGD([{"params": [weight], "lr": 0.2}, {"params": [bias], "lr": 0.1}])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    options: Any = {"epochs": 3, "scheduler": scheduler}
    history = gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), **options)
    assert history.lr.tolist() == [[0.2, 0.1], [0.2, 0.1], [0.1, 0.05]]


def test_a_fit_that_was_cut_short_keeps_no_more_memory_than_it_needs() -> None:
    history = fit(10_000_000, callbacks=lambda epoch, *_: epoch >= 10, callback_every=10)
    assert len(history.loss) == 11
    assert history.loss.untyped_storage().nbytes() < 10_000


def test_records_are_evenly_spaced_however_the_fit_is_cut() -> None:
    plain = fit(20, record_every=4)
    for every in (1, 3, 5, 7):
        cut = fit(20, record_every=4, callbacks=lambda *_: None, callback_every=every)
        assert cut.recorded_epochs == plain.recorded_epochs
        assert torch.equal(cut.parameters["weight"], plain.parameters["weight"])


W = torch.zeros(2, 1, dtype=torch.float64)


class TwoOfOneName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.zeros(2, 1, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.W + x**2 @ W


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("method", ["stepwise", "eager"])
def test_two_parameters_of_one_name(
    method: str, batch_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    monkeypatch.setitem(globals(), "W", other)
    model, x = TwoOfOneName(), torch.randn(10, 2, dtype=torch.float64)
    optimizer = torch.optim.SGD([model.W, other], lr=0.05)
    options: Any = {"method": method, "batch_size": batch_size, "record_every": 1}
    history = gdcore.fit(
        model, nn.MSELoss(), optimizer, (x, x.sum(1, keepdim=True)), epochs=3, **options
    )
    assert list(history.parameters) == ["W", "W_1"]
    assert torch.equal(history.parameters["W"][-1], model.W.cpu())
    assert torch.equal(history.parameters["W_1"][-1], other.cpu())
