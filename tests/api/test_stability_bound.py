"""The bound on the curvature that a fit looks at before its first step."""

import pytest
import torch
from torch import nn

import gdcore
from gdcore._native import stability as _stability
from gdcore._native.problem import Problem

from ..devices import NOT_EMULATED

pytestmark = pytest.mark.usefixtures("device")


def problem(kernel: str, dtype: torch.dtype = torch.float32) -> Problem:
    torch.manual_seed(0)
    if kernel == "polynomial":
        model, x, y = gdcore.nn.PolynomialRegression(3), torch.randn(300), torch.randn(300)
    else:
        model, x, y = nn.Linear(5, 1), torch.randn(300, 5), torch.randn(300, 1)
    names, parameters = zip(*model.to(dtype).named_parameters(), strict=True)
    return Problem(kernel, names, parameters, x.to(dtype), y.to(dtype), None, True)


def in_blocks(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_BLOCK_ELEMENTS", "_DEVICE_BLOCK_ELEMENTS"):
        monkeypatch.setattr(_stability, name, elements)


@NOT_EMULATED
@pytest.mark.parametrize("kernel", ["linear", "polynomial"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_data_stay_as_they_are(kernel: str, dtype: torch.dtype) -> None:
    given = problem(kernel, dtype)
    x = given.x.clone()
    _stability.curvature_bound(given)
    assert torch.equal(given.x, x)


@NOT_EMULATED
@pytest.mark.parametrize("kernel", ["linear", "polynomial"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("small", [0, 1500])
@pytest.mark.parametrize("across", [False, True])
def test_it_is_the_trace_of_the_hessian_whatever_the_blocks(
    kernel: str, dtype: torch.dtype, small: int, across: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = problem(kernel, dtype)
    if across:
        given = given._replace(x=torch.stack([given.x, given.x], -1)[..., 0])
    monkeypatch.setattr(_stability, "_SMALL", small)
    if kernel == "polynomial":
        features = torch.vander(given.x.double(), 4)
        model: nn.Module = gdcore.nn.PolynomialRegression(3).to(dtype)
    else:
        features = torch.cat([given.x.double(), torch.ones(300, 1, dtype=torch.float64)], 1)
        model = nn.Linear(5, 1, dtype=dtype)
    trace = (2 / 300 * features.square().sum()).item()
    for elements in (1, 7, 100, 2**16):
        in_blocks(elements, monkeypatch)
        bound = _stability.curvature_bound(given)
        assert bound is not None
        # Rounded up, for sums of at most 1 500 positive float32 terms.
        assert trace <= bound <= trace * (1 + 2 * 1500 * 2**-23)
    largest = gdcore.curvature(model, nn.MSELoss(), (given.x, given.y)).largest_curvature
    assert largest <= trace


@NOT_EMULATED
def test_no_more_rows_than_a_block_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    in_blocks(100, monkeypatch)
    monkeypatch.setattr(_stability, "_SMALL", 0)
    seen = []
    norm = torch.linalg.vector_norm
    monkeypatch.setattr(
        torch.linalg, "vector_norm", lambda x, **options: (seen.append(x.numel()), norm(x))[1]
    )
    _stability.curvature_bound(problem("linear"))
    assert len(seen) == 15
    assert max(seen) == 100


def test_a_short_fit_over_many_rows_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a factorisation would take longer than the fit may wait, a bound is of no use."""
    monkeypatch.setattr(_stability, "_squares", lambda *_: pytest.fail("it looked"))
    x, model = torch.randn(100_000, 64), nn.Linear(64, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    gdcore.fit(model, nn.MSELoss(), optimizer, (x, x[:, :1]), epochs=1, method="stepwise")


def test_groups_with_rates_of_their_own_are_not_warned() -> None:
    """No single rate is the largest, and these converge."""
    torch.manual_seed(0)
    model, x = nn.Linear(1, 1), 0.01 * torch.randn(50, 1)
    groups = [{"params": [model.weight], "lr": 5000.0}, {"params": [model.bias], "lr": 0.3}]
    history = gdcore.fit(
        model, nn.MSELoss(), torch.optim.SGD(groups, lr=0.1), (x, 3 * x + 1), epochs=200
    )
    assert history.loss[-1] < 1e-6 * history.loss[0]
