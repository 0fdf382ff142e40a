"""`fit` and `train_step` over emulated kernels: what the chooser says, and the CPU's numbers.

CPU tensors pass for CUDA's where the way is chosen; the launches go to the emulator.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdcore
from gdcore._loop import choice as _choice
from gdcore._loop.native_model import Recognised
from gdcore._native.problem import Problem, StopRule, checked
from gdcore._native.runners import StepwiseRunner
from gdcore._recognition.models import NativeModel

from ..native.problems import OPTIMIZERS, linear, optimizer, twin

pytest.importorskip("gdcore._native.cuda_loop", reason="built without the CUDA path")

# Twelve steps of sums over some tens of rows, in another order.
CLOSE: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture
def pretended(on_host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 0)
    monkeypatch.setattr(Recognised, "device", property(lambda self: device))
    monkeypatch.setattr(NativeModel, "on_cuda", property(lambda self: True))
    monkeypatch.setattr(_choice, "_check_device", lambda *_: None)


def runners(problem: Problem, name: str = "SGD with all options") -> tuple[Any, StepwiseRunner]:
    """Of the problem, and on the CPU of its twin."""
    from gdcore._native.cuda_runner import CudaRunner

    other = twin(problem)
    return (
        CudaRunner(problem, optimizer(name, problem.parameters)),
        StepwiseRunner(other, optimizer(name, other.parameters)),
    )


def agree(mine: Any, theirs: Any) -> None:
    assert (mine.outcome, mine.epochs, mine.updates) == (
        theirs.outcome,
        theirs.epochs,
        theirs.updates,
    )
    for name in ("losses", "step_losses", "records"):
        left, right = getattr(mine, name), getattr(theirs, name)
        assert (left is None) == (right is None), name
        if left is not None:
            torch.testing.assert_close(left, right, **CLOSE)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_full_batch(on_host: Any, name: str, weighted: bool) -> None:
    problem = linear(30, 3, 2, weighted=weighted)
    mine, theirs = runners(problem, name)
    for epochs in (1, 7, 4):
        agree(mine.run(epochs, record_every=3), theirs.run(epochs, record_every=3))
    for p, q in zip(mine._problem.parameters, theirs._problem.parameters, strict=True):
        torch.testing.assert_close(p, q, **CLOSE)
        left, right = mine._optimizer.state.get(p, {}), theirs._optimizer.state.get(q, {})
        assert left.keys() == right.keys()
        for key in left:
            torch.testing.assert_close(left[key], right[key], **CLOSE)


@pytest.mark.parametrize("rows", [30, 1100])
def test_chunks_do_not_show(on_host: Any, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for first in (1, 3, 64):
        problem = linear(rows, 20, 2, torch.float32)
        mine, _ = runners(problem, "Adam with all options")
        mine._chunk = first
        monkeypatch.setattr("gdcore._native.cuda_runner._CHUNK", 0.0)  # each is half of the last
        ran = mine.run(9, record_every=2)
        found.append((ran.losses, ran.records, *(p.detach() for p in problem.parameters)))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("order", [None, torch.randperm(67), torch.randint(67, (100,))])
@pytest.mark.parametrize("weighted", [False, True])
def test_minibatches(on_host: Any, size: int, order: Tensor | None, weighted: bool) -> None:
    mine, theirs = runners(linear(67, weighted=weighted), "Adam")
    for _ in range(2):
        agree(
            mine.run(1, order=order, batch_size=size), theirs.run(1, order=order, batch_size=size)
        )


@pytest.mark.parametrize("name", ["Adam", "SGD, Nesterov, ascending"])
@pytest.mark.parametrize("first", [1, 5, 64])
def test_stop(on_host: Any, name: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at after a chunk; what went past it is taken back, to the bit."""
    monkeypatch.setattr("gdcore._native.cuda_runner._CHUNK", 0.0)  # each is half of the last
    rule = StopRule(no_improvement_for=3)
    if name == "Adam":
        losses = runners(linear(30, 3, 2), name)[1].run(20).losses
        rule = StopRule(loss_below=losses[-2:].mean().item())
    problem = linear(30, 3, 2)
    mine, theirs = runners(problem, name)
    mine._chunk = first
    ours = mine.run(200, stop=rule)
    agree(ours, theirs.run(200, stop=rule))
    assert ours.outcome == "stopped"
    assert all(s.get("step", ours.updates) == ours.updates for s in mine._optimizer.state.values())
    plain, _ = runners(linear(30, 3, 2), name)
    plain.run(ours.updates)
    for p, q in zip(problem.parameters, plain._problem.parameters, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_dtypes(on_host: Any, dtype: torch.dtype) -> None:
    """Where a fit ends is where an update no longer moves what is stored: some units there."""
    from gdcore._native.cuda_runner import CudaRunner

    wanted = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    x = torch.randn(3000, 3, dtype=torch.float64)
    weight = nn.Parameter(torch.zeros(1, 3, dtype=dtype))
    data = (x.to(dtype), (x @ wanted.t()).to(dtype), None)
    problem = Problem("linear", ("weight",), (weight,), *data, mean=True)
    ran = CudaRunner(problem, torch.optim.SGD([weight], lr=0.25)).run(40)
    assert ran.losses.dtype == dtype
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(weight.detach().double(), wanted, rtol=0, atol=16 * unit)


def test_gradient_norms_are_refused(on_host: Any) -> None:
    mine, _ = runners(linear())
    with pytest.raises(ValueError, match="no gradient_norm_below"):
        mine.run(3, stop=StopRule(gradient_norm_below=1.0))


def test_divergence(on_host: Any) -> None:
    problem = linear(30, 3, 2, torch.float32)
    mine = runners(problem, "SGD")[0]
    mine._optimizer.param_groups[0]["lr"] = 1e5
    ran = mine.run(100)
    assert ran.outcome == "diverged"
    assert ran.epochs == ran.updates + 1 == len(ran.losses)
    assert not ran.losses[-1].isfinite()
    assert ran.losses[:-1].isfinite().all()
    assert all(p.isfinite().all() for p in problem.parameters)


def test_interrupts(on_host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two chunks: what has been made is told."""
    mine, theirs = runners(linear())
    answers = iter([False, False, True])
    monkeypatch.setattr("gdcore._native.cuda_runner._interrupts.waiting", lambda: next(answers))
    mine._chunk = 4
    ran = mine.run(1000)
    assert ran.outcome == "interrupted"
    assert 0 < ran.epochs == ran.updates == len(ran.losses) < 1000
    torch.testing.assert_close(ran.losses, theirs.run(ran.epochs).losses, **CLOSE)


@pytest.mark.parametrize("frozen", ["requires no gradient", "not in the optimizer"])
@pytest.mark.parametrize("rows", [30, 1100])
def test_frozen_parameters(on_host: Any, frozen: str, rows: int) -> None:
    from gdcore._native.cuda_runner import CudaRunner

    problem = linear(rows, 20, 2)
    other = twin(problem)
    ran = []
    for kind, own in ((CudaRunner, problem), (StepwiseRunner, other)):
        weight, bias = own.parameters
        held = [weight, bias]
        if frozen == "requires no gradient":
            weight.requires_grad_(False)
        else:
            held = [bias]
        ran.append(kind(own, torch.optim.Adam(held)).run(5, record_every=1))
    agree(*ran)
    assert torch.equal(problem.parameters[0], linear(rows, 20, 2).parameters[0])
    assert not torch.equal(problem.parameters[1], linear(rows, 20, 2).parameters[1])


def test_states_of_another_kind(on_host: Any) -> None:
    problem = linear()
    mine, _ = runners(problem)
    weight = problem.parameters[0]
    mine._optimizer.state[weight]["momentum_buffer"] = torch.zeros(weight.shape).float()
    before = weight.detach().clone()
    with pytest.raises(ValueError, match=r"momentum_buffer contiguous.*got shape .*float32"):
        mine.run(3)
    assert torch.equal(weight, before)


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
    assert explained(nn.Linear(3, 1), epochs=100_000).method == "compressed"
    few = explained(nn.Linear(3, 1), batch_size=8)
    assert (few.method, few.batch_size) == ("stepwise", 8)


def test_explain_what_has_no_steps(pretended: None) -> None:
    """Then it is compressed, as far as it is affine and a full batch; else it is eager."""
    weight = torch.zeros(3, 1, requires_grad=True)
    function = {"model": lambda x: x @ weight, "parameters": [weight]}
    plan = explained(**function)
    assert plan.method == "compressed"
    assert plan.why.startswith("model: expected one that has a kernel of its own")
    assert "stepwise" not in str(plan).splitlines()[-1]
    for options in ({"batch_size": 8}, {"method": "stepwise"}):
        plan = explained(**function, **options)
        assert plan.method == "eager"
        assert plan.why == "model: expected one that has a kernel of its own to step on CUDA"
    plan = explained(nn.Linear(3, 17), data=(X, torch.ones(40, 17)), method="stepwise")
    assert plan.why.startswith("model: expected at most 512 columns and 16 outputs on CUDA")
    legendre = gdcore.nn.LegendreRegression()
    with pytest.raises(ValueError, match=r"max_grad_norm: expected None to step on CUDA, got 1\.0"):
        fitted(legendre, (X[:, 0], Y[:, 0]), strict=True, max_grad_norm=1.0)


def fitted(model: nn.Module, data: Any = (X, Y), **options: Any) -> gdcore.History:
    how = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
    return gdcore.fit(model, nn.MSELoss(), how, data, **{"epochs": 12, **options})


WAYS: dict[str, dict[str, Any]] = {
    "full batch": {},
    "records": {"record_every": 5, "method": "stepwise"},
    "batches": {"batch_size": 16, "record_steps": True},
    "one batch": {"batch_size": 100, "epochs": 2000},
    "a clipped gradient": {"max_grad_norm": 0.1},
    "a rule": {"stop": gdcore.stop_when(loss_below=1.2), "method": "stepwise"},
    "a rule for gradients": {"stop": gdcore.stop_when(gradient_norm_below=0.1)},
    "weights": {"weight": torch.rand(40), "method": "stepwise"},
    "callbacks": {"callbacks": lambda epoch, loss, model: epoch == 7, "callback_every": 7},
    "validation": {"validation": (X[:9], Y[:9]), "metrics": ("r2",)},
}


@pytest.mark.parametrize("way", WAYS)
def test_fit(pretended: None, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that it says, and the numbers of the CPU."""
    model = nn.Linear(3, 1)
    other = nn.Linear(3, 1)
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
        (X, Y.double(), TypeError, r"y: expected dtype torch.float32 as x, got torch.float64"),
    ):
        with pytest.raises(kind, match=said):
            step(x, y)
        with pytest.raises(kind, match=said):
            fitted(model, (x, y))
    assert torch.equal(model.weight, before)
