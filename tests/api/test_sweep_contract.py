"""What a sweep promises beside its numbers: nothing changed, errors named, a readable record."""

import copy
import json
from typing import Any

import pytest
import torch
from torch import nn

import gdcore

from ..devices import NOT_EMULATED

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]  # it is torch's operations

Problem = tuple[nn.Module, torch.optim.Optimizer, Any]


@pytest.fixture
def problem(device: torch.device) -> Problem:
    model = nn.Linear(2, 1)
    x = torch.randn(40, 2)
    return model, torch.optim.SGD(model.parameters(), lr=0.1), (x, x.sum(1, keepdim=True))


def sweep(problem: Any, **options: Any) -> gdcore.Sweep:
    model, optimizer, data = problem
    return gdcore.sweep(model, nn.MSELoss(), optimizer, data, **{"epochs": 50, **options})


def test_the_model_is_left_alone_until_a_run_is_applied(problem: Any) -> None:
    model, optimizer, (x, y) = problem
    before = [p.detach().clone() for p in model.parameters()]
    state = torch.get_rng_state()
    found = sweep(problem, lr=[0.01, 0.1, 5.0], momentum=[0.0, 0.5])
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert torch.equal(torch.get_rng_state(), state)
    best = found.best()
    assert best.final_loss == min(run.final_loss for run in found if run.diverged is None)
    found.apply(best)
    with torch.no_grad():
        # float32 parameters: each prediction is off by some 1e-7
        assert abs(nn.functional.mse_loss(model(x), y).item() - best.final_loss) < 1e-12
    found.apply(found[0])
    assert torch.allclose(model.weight.double().cpu(), found[0].parameters["weight"], rtol=1e-6)
    found.apply()
    assert torch.allclose(model.weight.double().cpu(), best.parameters["weight"], rtol=1e-6)


def test_it_is_a_sequence(problem: Any) -> None:
    found = sweep(problem, lr=[0.01, 0.1, 0.2])
    assert len(found) == 3
    assert [run.settings["lr"] for run in found] == [0.01, 0.1, 0.2]
    assert found[-1].index == 2
    assert [run.index for run in found[1:]] == [1, 2]
    with pytest.raises(IndexError):
        found[3]
    assert "3 runs (3 lr) of 50 epochs" in repr(found)
    assert "lr=0.1" in repr(found[1])


def test_it_is_written_as_json(problem: Any) -> None:
    found = sweep(problem, lr=[0.1, 1e30], momentum=[0.5])
    read = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert read["epochs"] == 50
    assert read["runs"][0] == {
        "lr": 0.1, "momentum": 0.5, "final_loss": found[0].final_loss, "diverged": None,
    }  # fmt: skip
    assert read["runs"][1]["final_loss"] is None
    assert read["runs"][1]["diverged"] == found[1].diverged
    assert "diverged" in repr(found[1])
    assert "1 diverged" in repr(found)


def test_the_stable_limit_of_each_run(problem: Any) -> None:
    model, _, data = problem
    found = sweep(problem, lr=[0.1, 0.2], momentum=[0.0, 0.9])
    limit = gdcore.curvature(model, nn.MSELoss(), data).largest_stable_lr
    assert found.largest_stable_lr is not None
    expected = [limit(0.0), limit(0.9), limit(0.0), limit(0.9)]
    assert torch.allclose(found.largest_stable_lr, torch.tensor(expected, dtype=torch.float64))
    adam = gdcore.sweep(
        model, nn.MSELoss(), torch.optim.Adam(model.parameters()), data, epochs=2, lr=[0.1]
    )
    assert adam.largest_stable_lr is None


def test_no_run_is_left(problem: Any) -> None:
    found = sweep(problem, lr=[1e30, 1e31])
    with pytest.raises(ValueError, match="expected a run that did not diverge"):
        found.best()
    assert "all diverged" in repr(found)


def test_nothing_varied_is_one_run(problem: Any) -> None:
    found = sweep(problem)
    assert len(found) == 1
    assert found[0].settings == {}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": []}, ValueError, "lr: expected at least one value"),
        ({"lr": [-0.1]}, ValueError, "lr: expected finite values from 0"),
        ({"lr": [float("nan")]}, ValueError, "lr: expected finite values from 0"),
        ({"lr": 0.1}, TypeError, "lr: expected a list of numbers, got float"),
        ({"lr": "0.1"}, TypeError, "lr: expected a list of numbers, got str"),
        ({"lr": ["a"]}, TypeError, "lr: expected a list of numbers, got 'a' in it"),
        ({"momentum": torch.tensor(0.5)}, TypeError, "momentum: expected a list of numbers"),
        ({"initial": {"bias": 1.0}}, TypeError, "initial: expected a list of mappings"),
        ({"epochs": 0}, ValueError, "epochs: expected at least 1"),
        ({"epochs": 1.5}, TypeError, "epochs: expected an int"),
        ({"batch_size": 0}, ValueError, "batch_size: expected at least 1"),
        ({"method": "magic"}, ValueError, "method: expected auto, compressed or stepwise"),
        ({"method": "compressed", "batch_size": 5}, ValueError, "method: expected stepwise"),
        ({"initial": []}, ValueError, "initial: expected at least one start"),
        ({"initial": [{"b": 1.0}]}, ValueError, "initial: expected names among weight, bias"),
        ({"initial": [{"bias": torch.ones(2)}]}, ValueError, "initial: expected bias of shape"),
    ],
)
def test_wrong_arguments(
    problem: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sweep(problem, **options)


def test_what_cannot_be_swept(problem: Any) -> None:
    model, _, data = problem
    parameters = list(model.parameters())

    def tried(model: Any, optimizer: Any, **options: Any) -> None:
        gdcore.sweep(model, nn.MSELoss(), optimizer, data, epochs=2, **options)

    with pytest.raises(ValueError, match="momentum: expected a setting of the optimizer, got Adam"):
        tried(model, torch.optim.Adam(parameters), momentum=[0.5])
    with pytest.raises(TypeError, match="optimizer: expected SGD, RMSprop, Adam or AdamW"):
        tried(model, torch.optim.Adagrad(parameters))
    nesterov = torch.optim.SGD(parameters, lr=0.1, momentum=0.5, nesterov=True)
    with pytest.raises(ValueError, match="momentum: expected values above 0 with nesterov=True"):
        tried(model, nesterov, momentum=[0.0, 0.5])
    with pytest.raises(ValueError, match="model: expected a parameter that is trained"):
        tried(model, torch.optim.SGD(copy.deepcopy(model).parameters(), lr=0.1))
    bent = nn.Sequential(nn.Linear(2, 1), nn.Tanh()).to(data[0].device)
    with pytest.raises(TypeError, match="model: expected one that is affine"):
        tried(bent, torch.optim.SGD(bent.parameters(), lr=0.1))


def test_a_loss_that_is_written_as_a_function(problem: Any) -> None:
    model, optimizer, data = problem
    for options in ({}, {"batch_size": 15}):
        known = sweep(problem, lr=[0.01, 0.1], **options)
        found = gdcore.sweep(
            model,
            lambda h, y: torch.mean((h - y) ** 2),
            optimizer,
            data,
            lr=[0.01, 0.1],
            epochs=50,
            **options,
        )
        assert [run.final_loss for run in found] == [run.final_loss for run in known]
    with pytest.raises(TypeError, match=r"<lambda> is .*not those of a squared error"):
        # right for all 40 rows, and wrong for a batch of 15
        gdcore.sweep(
            model,
            lambda h, y: ((h - y) ** 2).sum() / 40,
            optimizer,
            data,
            lr=[0.1],
            epochs=1,
            batch_size=15,
        )
