"""Descents drawn from a history: from its start, on the loss of what was trained."""

import copy
import gc
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

import gdcore
from gdcore import plotting

X = torch.tensor([[1.0], [2.0], [3.0]])
Y = 2 * X
LOSS = nn.MSELoss()


def line(bias: bool = True) -> nn.Module:
    model = gdcore.nn.LinearRegression(bias=bias)
    for parameter in model.parameters():
        nn.init.constant_(parameter, -1.0)
    return model


def trained(
    model: Any, lr: float = 0.1, epochs: int = 40, x: Tensor = X, y: Tensor = Y, **options: Any
) -> gdcore.History:
    options = {"record_every": 1, **options}
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=epochs, **options)


def path_of(ax: Axes) -> Any:
    return np.asarray(ax.lines[0].get_xydata())


def optimum_of(ax: Axes) -> Any:
    (found,) = [each for each in ax.lines if each.get_label() == "optimum"]
    return np.asarray(found.get_xydata())[0]


def numbers(ax: Axes) -> dict[int, float]:
    """Where the parabola's numbered points are: each number stands beside its point."""
    texts = [text for text in ax.texts if text.get_text()]
    return {int(text.get_text()): float(text.xy[0]) for text in texts}  # type: ignore[attr-defined]


def test_a_fit_keeps_its_start() -> None:
    model = line()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    first, second = trained(model, epochs=4), trained(model, epochs=3)
    assert {name: value.tolist() for name, value in first.start.items()} == {
        name: value.tolist() for name, value in before.items()
    }
    for name, value in second.start.items():
        assert torch.equal(value, first.parameters[name][-1])
    both = first + second
    assert both.start is first.start
    assert both.to_dict()["start"] == {"weight": [[-1.0]], "bias": [-1.0]}
    assert trained(model, record_every=None).start == {}
    for batch in (1, 2):
        model = line()
        assert trained(model, epochs=2, batch_size=batch).start["bias"].item() == -1.0


@pytest.mark.parametrize("every", [1, 3])
def test_one_parameter_is_its_parabola(every: int) -> None:
    """The loss of W x for y = 2 x over 1, 2, 3 is 14/3 (W - 2)²; float32 records carry 1e-6."""
    model = line(bias=False)
    history = trained(model, 0.15, record_every=every, epochs=9)
    steps = history.parameters["weight"].double().flatten().numpy()
    found = gdcore.curvature(model, LOSS, (X, Y))
    alone = plotting.descent(history)
    for ax in (alone, plotting.descent(history, found), plotting.descent(copy.copy(history))):
        curve, dots = ax.lines
        w, heights = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
        assert np.allclose(heights, 14 / 3 * (w - 2) ** 2, rtol=1e-4, atol=1e-4)
        assert np.allclose(np.asarray(dots.get_xdata()), [-1.0, *steps])
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("weight", "loss")
        known = {0: -1.0} | {1 + every * i: step for i, step in enumerate(steps.tolist())}
        shown = numbers(ax)
        assert {0, 1} <= set(shown) <= set(known)
        assert shown == pytest.approx({number: known[number] for number in shown})


def test_the_losses_of_one_parameter_do_without_what_was_trained() -> None:
    for forgotten in (copy.deepcopy, lambda history: pickle.loads(pickle.dumps(history))):
        history = forgotten(trained(line(bias=False), 0.15, epochs=8))
        curve, dots = plotting.descent(history).lines
        w, heights = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
        assert np.allclose(heights, 14 / 3 * (w - 2) ** 2, rtol=1e-4, atol=1e-4)
        assert np.asarray(dots.get_xdata())[0] == -1.0
    few = copy.deepcopy(trained(line(bias=False), 3 / 28, epochs=1))
    with pytest.raises(ValueError, match="three different records"):
        plotting.descent(few)
    model = line(bias=False)
    # The mean over an epoch's batches is (W - 2)² times another number than the loss's.
    batches = trained(model, 0.02, epochs=8, batch_size=1)
    model = line(bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    straight = gdcore.fit(model, nn.L1Loss(), optimizer, (X, Y), epochs=8, record_every=1)
    for history in (batches, straight):
        with pytest.raises(ValueError, match="losses are not those of a parabola"):
            plotting.descent(copy.deepcopy(history))


def test_two_parameters_cross_contours() -> None:
    model = line()
    history = trained(model)
    recorded = [history.parameters[name].flatten().numpy() for name in ("weight", "bias")]
    for ax in (
        plotting.descent(history),
        plotting.descent(history, gdcore.curvature(model, LOSS, (X, Y))),
    ):
        path = path_of(ax)
        assert path[0].tolist() == [-1.0, -1.0]
        assert np.allclose(path[1:], np.stack(recorded, 1))
        assert np.allclose(optimum_of(ax), [2.0, 0.0], atol=1e-6)
        assert ax.collections, "no contours"
    both = history + trained(model)
    path = path_of(plotting.descent(both))
    assert path[0].tolist() == [-1.0, -1.0]
    assert len(path) == 81


def test_many_parameters_show_the_slowest_two() -> None:
    x, y = torch.randn(50, 4), torch.randn(50, 1)
    model = nn.Linear(4, 1)
    found = gdcore.curvature(model, LOSS, (x, y))
    history = trained(model, 0.1, 300, x, y, record_every=3)
    ax = plotting.descent(history)
    path = path_of(ax)
    along = found.along_directions(history.parameters).numpy()
    assert np.allclose(path[1:], along[:, [-1, -2]], atol=1e-6)
    assert ax.get_xlabel() == "slowest direction (distance)"
    # Each direction shrinks by its own factor, three epochs between two records.
    for column, curvature in ((-1, found.curvatures[-1]), (-2, found.curvatures[-2])):
        factor = abs(1 - 0.1 * curvature.item()) ** 3
        assert abs(along[3, column] / along[2, column]) == pytest.approx(factor, rel=1e-3)


def test_directions_that_are_flat_are_left_out() -> None:
    for columns, names in (
        (3, ("the one direction that is not flat (distance)", "loss")),
        (2, ("weight[0]", "weight[1]")),
    ):
        model, x = nn.Linear(columns, 1, bias=False), X.expand(3, columns)
        ax = plotting.descent(trained(model, 0.01, x=x))
        assert (ax.get_xlabel(), ax.get_ylabel()) == names
    model, x = nn.Linear(2, 1, bias=False), torch.zeros(3, 2)
    history = trained(model, x=x)
    with pytest.raises(ValueError, match="curvature: expected a direction that is not flat"):
        plotting.descent(history)


def test_parameters_that_are_not_trained_are_left_out() -> None:
    model = line()
    model.get_parameter("bias").requires_grad_(False)
    ax = plotting.descent(trained(model))
    assert ax.get_xlabel() == "weight"
    assert np.asarray(ax.lines[0].get_xdata()).mean() == pytest.approx(17 / 7, abs=1e-3)


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("of_tensors", [True, False])
def test_functions_weights_batches_and_datasets(batch: int | None, of_tensors: bool) -> None:
    W, b = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)

    def model(x: Tensor) -> Tensor:
        return x * W + b

    weight = torch.tensor([1.0, 2.0, 4.0])
    data: Any = (X, Y + X**2, weight)
    given = torch.utils.data.TensorDataset(*data) if of_tensors else data
    options: Any = {"epochs": 5, "record_every": 1, "batch_size": batch}
    history = gdcore.fit(model, LOSS, torch.optim.SGD([W, b], lr=0.01), given, **options)
    found = gdcore.curvature(model, LOSS, data, parameters=[W, b]).optimum
    ax = plotting.descent(history)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("W", "b")
    assert np.allclose(optimum_of(ax), [found["W"].item(), found["b"].item()])


def test_a_history_keeps_no_data_alive() -> None:
    x, y, model = X.clone(), Y.clone(), line()
    history = trained(model, x=x, y=y)
    plotting.descent(history)
    references = [weakref.ref(each) for each in (x, y, model)]
    del x, model
    gc.collect()
    assert [reference() is None for reference in references] == [True, False, True]
    with pytest.raises(ValueError, match=r"^curvature: expected gdcore\.curvature.* for 2 param"):
        plotting.descent(history)


def test_data_that_have_changed_are_not_those_of_the_fit() -> None:
    x, model = X.clone(), line()
    history = trained(model, x=x)
    x += 1
    with pytest.raises(ValueError, match="no longer there, or have changed"):
        plotting.descent(history)


def test_histories_of_other_data_are_not_of_one_descent() -> None:
    model, other = line(), Y + 1
    both = trained(model) + trained(model, y=other)
    with pytest.raises(ValueError, match="for 2 parameters"):
        plotting.descent(both)


@pytest.mark.filterwarnings("ignore:optimizer. lr=.* is above:RuntimeWarning")
def test_a_descent_that_diverges_is_cut() -> None:
    model = line()
    path = path_of(plotting.descent(trained(model, 0.25)))
    assert 2 <= len(path) < 20


def test_it_says_what_is_missing() -> None:
    model = line()
    with pytest.raises(ValueError, match="history: expected recorded parameters, got none"):
        plotting.descent(trained(model, record_every=None))
    for forgotten in (copy.deepcopy, lambda history: pickle.loads(pickle.dumps(history))):
        with pytest.raises(ValueError, match="for 2 parameters, because the model"):
            plotting.descent(forgotten(trained(model)))
    other = gdcore.curvature(nn.Sequential(nn.Linear(1, 1), nn.Flatten()), LOSS, (X, X))
    with pytest.raises(ValueError, match=r"over weight, bias, got one over 0\.weight, 0\.bias"):
        plotting.descent(trained(model), other)
    network = nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1))
    local = gdcore.curvature(network, LOSS, (X, Y))
    history = trained(network)
    for given in (None, local):
        with pytest.raises(ValueError, match=r"curvature: expected .* affine .* one place only; "):
            plotting.descent(history, given)
