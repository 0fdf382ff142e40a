"""The bench is a folder of scripts beside the package: its modules are found there."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import available
import lesson_versions
import lessons
import limits
import linear_mse
import minibatches
import neighbour
import optim
import recognised
import run
import small_models
import stepwise
import threads
from table import Table
from timing import Effort

TINY = Effort(sample_seconds=0.0, case_seconds=0.0, least_rounds=2, most_rounds=2)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every suite with little work, measured twice.

    JAX is left out: once imported, it warns of every later fork of the process, also of those that
    other tests make.
    """
    monkeypatch.setattr(available, "installed", lambda peer: False)
    for module in (minibatches, stepwise.jax_peer):
        monkeypatch.setattr(module, "installed", lambda peer: False)
    monkeypatch.setattr(run, "QUICK", TINY)
    monkeypatch.setattr(run, "FULL", TINY)
    monkeypatch.setattr(limits, "past_cache_size", lambda: limits.MEBIBYTE)
    monkeypatch.setattr(lessons, "EPOCHS", 30)
    monkeypatch.setattr(lesson_versions, "names", lambda: ["deeper_gd_sgd"])
    monkeypatch.setattr(linear_mse, "EPOCHS", {(3, 1): 50, (32, 10): 50, (5000, 3): 20})
    monkeypatch.setattr(linear_mse, "COMPILED", [])
    monkeypatch.setattr(optim, "SIZES", {"2 tensors": [1000, 3000]})
    monkeypatch.setattr(small_models, "EPOCHS", 30)
    monkeypatch.setattr(recognised, "LONG", (500, 4))
    monkeypatch.setattr(stepwise, "EPOCHS", {(256, 64): 20, (2000, 20): 20})
    monkeypatch.setattr(stepwise, "TINY_EPOCHS", 3000)
    monkeypatch.setattr(stepwise, "CURVE_EPOCHS", 20)
    monkeypatch.setattr(threads, "POINTS", 20_000)
    monkeypatch.setattr(neighbour, "QUICK_STEPS", ((32, 10),))
    monkeypatch.setattr(neighbour, "SECONDS", 0.02)
    stand_in = Table("memory", "nothing", [["contender", "added"]], figures={"gdcore.fit adds": 1})
    monkeypatch.setitem(run.TABLES, "memory", lambda quick: stand_in)
    yield
    assert "jax" not in sys.modules
