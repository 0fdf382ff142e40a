"""The bar: what it shows, what it costs, and what happens without tqdm."""

import sys
import time
from typing import Any

import pytest
import torch
from torch import nn

import gdcore
from gdcore._loop import progress as _progress

from ..devices import NOT_EMULATED
from .training_cases import line


def fit(epochs: int, **options: Any) -> gdcore.History:
    torch.manual_seed(0)
    model, x, y = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=epochs, **options)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("batch_size", [None, 2])
def test_what_it_shows(batch_size: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    history = fit(50, progress=True, batch_size=batch_size)
    shown = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert "50/50" in shown[-1]
    assert "100%" in shown[-1]
    assert f"loss={history.loss[-1].item():.4g}" in shown[-1]
    assert "epoch/s" in shown[-1]


@pytest.mark.usefixtures("device")
def test_a_fit_that_ends_early_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    fit(50, progress=True, callbacks=lambda epoch, *_: epoch == 19)
    assert "20/50" in capsys.readouterr().err


class Slow:
    """A bar whose drawing takes as long as a notebook's, by a clock of its own."""

    seconds = 0.004
    drawn = 0

    def __init__(self, total: int, **options: Any) -> None:
        self.n, self.total = 0, total
        Slow.drawn += 1
        clock.now += self.seconds

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        assert not refresh

    def update(self, count: int) -> None:
        self.n += count
        Slow.drawn += 1
        clock.now += self.seconds

    def close(self) -> None:
        assert self.n == self.total


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


clock = Clock()


@pytest.mark.parametrize("pace", [1e-7, 1e-4, 0.03, 2.0])
def test_drawing_takes_at_most_a_hundredth(pace: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long an epoch takes: a minute of them, and the looks between them go unnoticed."""
    monkeypatch.setattr(_progress, "time", clock)
    clock.now, Slow.drawn = 0.0, 0
    epochs = int(60 / pace)
    progress = _progress.Progress(Slow, epochs)
    done = looks = 0
    while done < epochs:
        run = min(progress.chunk, epochs - done)
        clock.now += run * pace
        done += run
        looks += 1
        progress.update(done, 1.0)
    progress.close(1.0)
    assert Slow.drawn * Slow.seconds <= 0.01 * clock.now + 3 * Slow.seconds
    assert looks <= 60 / 0.05 + 40
    if pace < 1:
        assert Slow.drawn >= 60 / 0.7, "a drawing pays for 0.4 s, and is half of that late at most"


@pytest.mark.usefixtures("device")
@NOT_EMULATED  # thousands of epochs
def test_drawing_is_rare_where_events_cut_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(_progress.Progress, "_draw", lambda self, loss: drawn.append(1))
    begin = time.perf_counter()
    fit(3000, progress=True, callbacks=lambda *_: None)
    seconds = time.perf_counter() - begin
    assert len(drawn) <= seconds / 0.1 + 1


@pytest.mark.usefixtures("device")
def test_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    torch.manual_seed(0)
    model, x, y = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ModuleNotFoundError, match=r"^progress: expected tqdm .*gdcore\[progress\]"):
        gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=3, progress=True)
    assert all(map(torch.equal, before, model.parameters()))
