"""`fit` and `train_step` over emulated kernels: what the chooser says, and the CPU's numbers.

CPU tensors pass for CUDA's where the way is chosen; the launches go to the emulator.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdcore
from gdcore._native.problem import Problem, checked
from gdcore._recognition.models import NativeModel

from ..native.problems import OPTIMIZERS, optimizer

pytest.importorskip("gdcore._native.cuda_loop", reason="built without the CUDA path")

# Twelve steps of sums over some tens of rows, in another order.
CLOSE: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-11}


X, Y = torch.randn(40, 3), torch.randn(40, 1)


def explained(model: Any, loss_fn: Any = nn.MSELoss(), **options: Any) -> gdcore.Plan:  # noqa: B008
    parameters = options.pop("parameters", None) or list(model.parameters())
    how = options.pop("optimizer", torch.optim.SGD)(parameters, lr=0.1)
    data = options.pop("data", (X, Y))
    return gdcore.explain(model, loss_fn, how, data, **{"epochs": 10, **options})


def test_explain(pretended: None) -> None:
    """It names the device, and the way that is taken there."""
    plan = explained(nn.Linear(3, 1))
    assert "├─ device: cuda:0" in str(plan).splitlines()
    assert plan.method == "stepwise"
    costs = [line for line in str(plan).splitlines() if "cost:" in line]
    assert len(costs) == 1
    assert "cost: estimated from data sheets, not measured: " in costs[0]
    assert explained(nn.Linear(3, 1), epochs=100_000).method == "compressed"
    few = explained(nn.Linear(3, 1), batch_size=8)
    assert (few.method, few.batch_size) == ("stepwise", 8)


def test_explain_what_has_no_steps(pretended: None) -> None:
    """Then it is compressed, as far as it is affine and a full batch; else it is eager."""
    five = [torch.zeros(1, requires_grad=True) for _ in range(5)]
    function = {"model": lambda x: sum(x[:, :1] * p for p in five), "parameters": five}
    plan = explained(**function)
    assert plan.method == "compressed"
    assert plan.why.startswith("model: expected at most 4 parameters on CUDA, got 5")
    assert "stepwise" not in str(plan).splitlines()[-1]
    for options in ({"batch_size": 8}, {"method": "stepwise"}):
        plan = explained(**function, **options)
        assert plan.method == "eager"
        assert plan.why == "model: expected at most 4 parameters on CUDA, got 5"
    plan = explained(nn.Linear(3, 17), data=(X, torch.ones(40, 17)), method="stepwise")
    assert plan.why.startswith("model: expected at most 512 columns and 16 outputs on CUDA")


def fitted(model: nn.Module, data: Any = (X, Y), **options: Any) -> gdcore.History:
    how = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
    return gdcore.fit(model, nn.MSELoss(), how, data, **{"epochs": 12, **options})


WAYS: dict[str, dict[str, Any]] = {
    "full batch": {},
    "records": {"record_every": 5, "method": "stepwise"},
    "batches": {"batch_size": 16, "record_steps": True},
    "one batch": {"batch_size": 100, "epochs": 2000},
    "a clipped gradient": {"max_grad_norm": 0.1, "method": "stepwise"},
    "clipped batches": {"max_grad_norm": 0.1, "batch_size": 16},
    "a rule": {"stop": gdcore.stop_when(loss_below=1.2), "method": "stepwise"},
    "a rule for gradients": {
        "stop": gdcore.stop_when(gradient_norm_below=1.0),
        "method": "stepwise",
    },
    "weights": {"weight": torch.rand(40), "method": "stepwise"},
    "callbacks": {"callbacks": lambda epoch, loss, model: epoch == 7, "callback_every": 7},
    "validation": {"validation": (X[:9], Y[:9]), "metrics": ("r2",)},
}


class Features(nn.Module):
    """Affine in its parameters, one of which counts twice."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 1))
        self.bias = nn.Parameter(torch.randn(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x) @ self.weight + x[:, 1:2] * self.weight[0] + 2 * self.bias


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [lambda: nn.Linear(3, 1), Features], ids=["linear", "features"])
def test_fit(pretended: None, kind: Any, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that it says, and the numbers of the CPU."""
    model, other = kind(), kind()
    other.load_state_dict(model.state_dict())
    mine = fitted(model, **WAYS[way])
    assert mine.plan.device == "cuda:0"
    monkeypatch.undo()
    theirs = fitted(other, **WAYS[way])
    assert mine.stopped == theirs.stopped
    # Float32: a hundred roundings.
    torch.testing.assert_close(mine.loss, theirs.loss.to(mine.loss.dtype), rtol=2e-5, atol=1e-6)
    for name, values in theirs.parameters.items():
        torch.testing.assert_close(mine.parameters[name], values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.weight, other.weight, rtol=1e-4, atol=1e-5)


def test_divergence_of_a_fit(pretended: None) -> None:
    model = nn.Linear(3, 1)
    how = torch.optim.SGD(model.parameters(), lr=1e4)
    with (
        pytest.warns(RuntimeWarning, match="largest with which gradient descent converges"),
        pytest.raises(gdcore.DivergenceError) as error,
    ):
        gdcore.fit(model, nn.MSELoss(), how, (X, Y), epochs=100, method="stepwise")
    assert error.value.epoch == len(error.value.history.loss) - 1
    assert error.value.history.plan.device == "cuda:0"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps(pretended: None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from gdcore._native.cuda_runner import CudaStep

    calls: list[Any] = []
    called = CudaStep.__call__

    def counted(step: Any, x: Tensor, y: Tensor) -> Any:
        calls.append(x)
        return called(step, x, y)

    monkeypatch.setattr(CudaStep, "__call__", counted)
    model, other = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    other.load_state_dict(model.state_dict())
    x, y = torch.randn(50, 3).double(), torch.randn(50, 2).double()
    mine = gdcore.train_step(model, nn.MSELoss(), optimizer(name, model.parameters()))
    losses = [mine(x[:n], y[:n]) for n in (50, 20, 1, 50)]
    assert len(calls) == 4
    monkeypatch.undo()
    theirs = gdcore.train_step(other, nn.MSELoss(), optimizer(name, other.parameters()))
    for n, loss in zip((50, 20, 1, 50), losses, strict=True):
        assert loss.shape == ()
        torch.testing.assert_close(loss, theirs(x[:n], y[:n]), **CLOSE)
    torch.testing.assert_close(model.weight, other.weight, **CLOSE)


def test_steps_that_are_torch_s(
    pretended: None, on_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option that its kernels do not have, set between two steps, makes the step eager."""
    launches: list[Any] = []
    train = on_host.native.train

    def counted(*arguments: Any) -> None:
        launches.append(arguments)
        train(*arguments)

    monkeypatch.setattr(on_host.native, "train", counted)
    model = nn.Linear(3, 1)
    how = torch.optim.Adam(model.parameters())
    step = gdcore.train_step(model, nn.MSELoss(), how)
    for differentiable in (False, True, False):
        how.param_groups[0]["differentiable"] = differentiable
        before = model.weight.detach().clone()
        step(X, Y)
        assert not torch.equal(model.weight, before)
    assert len(launches) == 2
    assert how.state[model.weight]["step"] == 3


@pytest.mark.parametrize("name", ["RMSprop", "Adam", "AdamW"])
def test_counts_are_not_captured(
    pretended: None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph would replay the count of the step that it was captured at."""
    model = nn.Linear(3, 1)
    step = gdcore.train_step(model, nn.MSELoss(), optimizer(name, model.parameters()))
    step(X, Y)
    before = model.weight.detach().clone()
    monkeypatch.setattr("gdcore._native.cuda_runner._captured", lambda x: True)
    with pytest.raises(RuntimeError, match="capturable: expected True"):
        step(X, Y)
    assert torch.equal(model.weight, before)


def test_steps_of_sgd_are_captured(pretended: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the first with momentum, which is none that can be repeated."""
    monkeypatch.setattr("gdcore._native.cuda_runner._captured", lambda x: True)
    for momentum in (0.0, 0.9):
        model = nn.Linear(3, 1)
        how = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
        step = gdcore.train_step(model, nn.MSELoss(), how)
        if momentum:
            for state in ({}, {"momentum_buffer": None}):  # which torch's SGD once wrote
                how.state[model.weight] = how.state[model.bias] = state
                with pytest.raises(RuntimeError, match="momentum_buffer: expected one"):
                    step(X, Y)
            how.state.clear()
            with monkeypatch.context() as before:
                before.setattr("gdcore._native.cuda_runner._captured", lambda x: False)
                step(X, Y)
        assert step(X, Y) > 0


def test_a_fit_is_not_captured(pretended: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for its losses; told before anything is put on the stream."""
    monkeypatch.setattr("gdcore._native.cuda_runner._captured", lambda x: True)
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    with pytest.raises(RuntimeError, match="fit: expected no capture into a CUDA graph"):
        fitted(model, method="stepwise")
    assert torch.equal(model.weight, before)


def test_nothing_waits_for_settings() -> None:
    """Rates and counts on the device are torch's to read; meta stands for it."""
    from gdcore._native.cuda_runner import no_step

    model = nn.Linear(3, 1)
    native = NativeModel("linear", ("weight", "bias"), (model.weight, model.bias), False)
    how = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1), foreach=False)
    assert no_step(native, how) is None
    how.param_groups[0]["lr"] = torch.tensor(0.1, device="meta")
    assert "without waiting" in str(no_step(native, how))
    how.param_groups[0]["lr"] = 0.1
    how.state[model.bias] = {"step": torch.tensor(1.0, device="meta")}
    assert "counted on the CPU" in str(no_step(native, how))


def test_other_devices() -> None:
    """What is not where the parameters are is named before anything else is looked at."""
    weight = nn.Parameter(torch.zeros(1, 3))
    problem = Problem("linear", ("weight",), (weight,), X.to("meta"), Y, None, mean=True)
    with pytest.raises(ValueError, match="x: expected a tensor on cpu as the parameters, got one"):
        checked(problem)


def test_what_does_not_fit(pretended: None) -> None:
    """As on the CPU, with the same names, and nothing is written before."""
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    step = gdcore.train_step(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1))
    for x, y, kind, said in (
        (X, Y[:, 0], ValueError, r"y: expected shape \(40, 1\) as the prediction, got \(40,\)"),
        (X[:, 0], Y, ValueError, r"x: expected shape \(n, d\), got \(40,\)"),
        (X, Y.double(), TypeError, r"y: expected dtype torch.float32 as weight, got torch.float64"),
    ):
        with pytest.raises(kind, match=said):
            step(x, y)
        with pytest.raises(kind, match=said):
            fitted(model, (x, y))
    assert torch.equal(model.weight, before)
