"""gdcore's optimizers are a few roundings from exact arithmetic, and docs/parity.md says so."""

import pytest

from .optimizers import OURS, STEPS, Cell, error, measured
from .page import PAGE, WRONG, figure, figures_on


@pytest.fixture(scope="module")
def ours() -> dict[Cell, float | None]:
    return measured((OURS,))


def test_a_few_roundings(ours: dict[Cell, float | None]) -> None:
    """A unit and a half for each step: the parameter's rounding is half of one, the states' and the
    settings' roundings come on top."""
    for cell, found in ours.items():
        assert found is not None
        assert 0 < found <= 1.5 * STEPS < WRONG, cell


def test_the_page_is_current(ours: dict[Cell, float | None]) -> None:
    written = figures_on(PAGE.read_text())
    assert written == {cell: figure(found) for cell, found in ours.items()}, (
        "docs/parity.md: run `python -m tests.parity`"
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_step_that_is_left_out_would_show(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import gdcore

    monkeypatch.setattr(gdcore.optim.SGD, "step", lambda self, closure=None: None)
    found = error(Cell("SGD", dtype, "32 (whole vectors)", 0, OURS))
    assert found is not None
    assert found >= WRONG
