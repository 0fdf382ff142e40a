"""Turns, medians, ratios round by round, and shares of a limit."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import limits
import neighbour
import timing
from case import Case, Contender, Limit, Planned
from timing import Spread

from .conftest import TINY


def test_contenders_take_turns() -> None:
    turns: list[str] = []
    runs = [lambda name=name: turns.append(name) for name in "abc"]
    effort = replace(TINY, least_rounds=3, most_rounds=3)
    samples, calls = timing.interleave(runs, effort, known=[1.0, 1.0, 1.0])
    assert calls == [1, 1, 1]
    assert [len(taken) for taken in samples] == [3, 3, 3]
    assert "".join(turns) == "abcbcacab"


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert Spread.of([5.0]) == (5, 5, 5)
    assert Spread.of([4.0, 1.0, 3.0, 2.0, 5.0]) == (3, 2, 4)


def test_a_ratio_is_formed_round_by_round() -> None:
    """A round that is slow for both does not move it: the ratio of the medians would be 2.5."""
    assert timing.ratios([2.0, 20.0, 5.0], [1.0, 10.0, 2.0]).median == 2


def sleeping(clock: list[float], seconds: float) -> Callable[[], None]:
    def run() -> None:
        clock[0] += seconds

    return run


def test_times_shares_and_ratios_are_per_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only the contenders move: gdcore does 4 units in 2 s, the other 2 in 3 s."""
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing, "wait_until_idle", lambda: None)
    case = Case(
        [
            Contender("gdcore", sleeping(clock, 2.0)),
            Contender("other", sleeping(clock, 3.0), units=2),
        ],
        [],
        "unit",
        units=4,
        limit=Limit("read", "B", 100.0, sleeping(clock, 1.0)),
        work=10.0,
    )
    effort = replace(TINY, least_rounds=3, most_rounds=3)
    found = timing.measure(Planned("suite", "case", lambda: case), effort)
    assert found.rounds == 3
    assert found.row("gdcore").seconds.median == 0.5
    assert found.row("other").seconds.median == 1.5
    assert found.row("other").ratio.median == 3
    assert found.bound is not None
    # 4 units of 10 bytes in 2 s, where the limit does 100 in one.
    assert found.bound.share.median == pytest.approx(0.2)


def test_a_first_call_that_compiles_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    seconds = iter([7.0])

    def run() -> tuple[None, float]:
        clock[0] += next(seconds, 1.0)
        return None, 3.0

    from agreement import Expected
    from case import Check

    one = Contender("JAX", run, compiles=True)
    right = Expected(None, 0.0, np.array([3.0]), np.array([0.0]))
    first, last = timing.verify(Case([one], [Check([one], 2, right, "")], "call"))
    assert (first["JAX"], last["JAX"]) == (7, 1)


@pytest.mark.skipif(limits.library() is None, reason="no C compiler")
def test_the_limits_compute_what_they_say() -> None:
    x = torch.arange(1000 * 19, dtype=torch.float32).remainder(7).reshape(1000, 19)
    library = limits.library()
    assert library is not None
    # Sums of small integers are exact in float32, in any order.
    total = x.sum().item()
    assert library.plain_sum(x.data_ptr(), x.numel(), 3) == 3 * total
    order = torch.randperm(1000)
    assert library.row_sums(x.data_ptr(), order.data_ptr(), 1000, 19) == total
    rows = limits.random_rows(x)
    assert rows is not None
    assert (rows.run(), rows.amount) == (total, 4 * x.numel())
    chained = limits.multiply_adds()
    assert chained is not None
    # Chains, each of whole registers of lanes.
    assert chained.amount % (20_000 * 12 * 4) == 0


def test_small_reading_is_by_as_many_cores_as_a_step_takes() -> None:
    if limits.library() is None:
        pytest.skip("no C compiler")
    small, larger = limits.reading(2**18), limits.reading(2**21)
    assert small is not None
    assert larger is not None
    assert (small.name, larger.name) == (limits.CACHED, limits.CACHED)
    # So often that a call does not count: a small one sixteen times, half of the other four times.
    assert (small.amount, larger.amount) == (16 * 2**18, 4 * 2**21)
    large = limits.reading(2**23)
    assert large is not None
    assert (large.name, large.amount) == (limits.READ, 2**23)


def test_the_neighbour_sleeps_wakes_and_ends() -> None:
    with neighbour.spinning() as busy:
        busy(True)
        busy(False)
    assert neighbour.slowed([1.0] * 99 + [2.0], [2.0] * 99 + [40.0])[0] == pytest.approx(
        2.38 / 1.01
    )
