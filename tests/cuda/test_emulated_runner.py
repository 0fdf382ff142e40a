"""The runner on CUDA over emulated kernels, against the CPU's: losses, stops, what is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gdcore._native.problem import Problem, StopRule
from gdcore._native.runners import StepwiseRunner

from ..native.problems import OPTIMIZERS, linear, optimizer, twin

pytest.importorskip("gdcore._native.cuda_loop", reason="built without the CUDA path")

# Twelve steps of sums over some tens of rows, in another order.
CLOSE: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-11}


def runners(
    problem: Problem, name: str = "SGD with all options", **options: Any
) -> tuple[Any, StepwiseRunner]:
    """Of the problem, and on the CPU of its twin."""
    from gdcore._native.cuda_runner import CudaRunner

    other = twin(problem)
    return (
        CudaRunner(problem, optimizer(name, problem.parameters), **options),
        StepwiseRunner(other, optimizer(name, other.parameters), **options),
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
        monkeypatch.setattr("gdcore._native.cuda_runner._CHUNK", 0.0)  # then one at a time
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
    monkeypatch.setattr("gdcore._native.cuda_runner._CHUNK", 0.0)  # then one at a time
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


@pytest.mark.parametrize("name", ["SGD with all options", "RMSprop", "Adam with all options"])
@pytest.mark.parametrize("end", ["a failed launch", "out of memory", "a rule", "divergence"])
def test_no_step_leaves_no_state(
    on_host: Any, end: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends before the first update leaves the optimizer as it was; a step of it goes on."""
    problem = linear(30, 3, 2)
    mine = runners(problem, name)[0]
    state = mine._optimizer.state
    weight, bias = problem.parameters
    own = {
        "S": ["momentum_buffer"],
        "R": ["step", "square_avg"],
        "A": ["step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
    }[name[0]]
    given = {key: torch.ones(()) if key == "step" else torch.ones_like(bias) for key in own}
    state[bias] = dict(given)

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("no memory") if end == "out of memory" else RuntimeError("no")

    with monkeypatch.context() as patch:
        if end == "a rule":
            assert mine.run(5, stop=StopRule(loss_below=1e9)).outcome == "stopped"
        elif end == "divergence":
            diverging = problem._replace(y=torch.full_like(problem.y, torch.inf))
            patch.setattr(mine, "_problem", diverging)
            assert mine.run(5).outcome == "diverged"
        else:
            where = (on_host, "scratch") if end == "out of memory" else (on_host.native, "train")
            patch.setattr(*where, fail)
            with pytest.raises(RuntimeError, match=r"^no"):
                mine.run(5)
    assert list(state) == [bias]
    assert state[bias] == given
    assert all(torch.equal(tensor, torch.ones_like(tensor)) for tensor in given.values())
    mine.run(2)
    assert sorted(state[weight]) == sorted(own)
    assert all(state[bias][key] is tensor for key, tensor in given.items())


def test_a_loss_past_its_dtype_is_no_divergence(on_host: Any) -> None:
    """It is judged in float32: a float16 is infinite from 65 520 on, while the parameters move."""
    for rows in (100, 40_000):
        problem = linear(rows, 3, 2, torch.float16)
        problem = problem._replace(y=300 + problem.y)
        mine = runners(problem, "SGD")[0]
        mine._optimizer.param_groups[0]["lr"] = 0.2
        ran = mine.run(12)
        assert (ran.outcome, ran.updates) == ("finished", 12)
        assert ran.losses[0].isinf()
        assert ran.losses[-1].isfinite()


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


@pytest.mark.parametrize(("seconds", "chunks"), [(1.0, [1] * 5), (2**-10, [1, 20, 20, 9])])
def test_chunks_grow_with_what_they_take(
    on_host: Any, seconds: float, chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C waits for no more than one epoch, or a fiftieth of a second of them."""
    from gdcore._native.cuda_loop import CudaLoop

    made: list[int] = []
    put = CudaLoop.put
    monkeypatch.setattr(CudaLoop, "put", lambda loop, n: (made.append(n), put(loop, n)))
    clock = SimpleNamespace(perf_counter=lambda: seconds * sum(made))
    monkeypatch.setattr("gdcore._native.cuda_runner.time", clock)
    mine = runners(linear())[0]
    mine._chunk = 1
    mine.run(sum(chunks))
    assert made == chunks


@pytest.mark.parametrize("stop", [None, StopRule(no_improvement_for=2000)])
def test_a_small_fit_is_one_launch(on_host: Any, emulated: Any, stop: StopRule | None) -> None:
    problem = linear(3, 1, 1, torch.float32)
    ran = runners(problem)[0].run(2000, stop=stop)
    assert ran.updates == 2000
    assert emulated.launches() == 1


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


@pytest.mark.parametrize(
    ("kernel", "shape", "dtype", "rows", "batch", "clips", "expected"),
    [
        ("linear", (1, 3), torch.float32, 40, None, True, 0),
        ("linear", (1, 3), torch.float32, 40, 10, False, 1),
        ("linear", (1, 3), torch.bfloat16, 40, None, False, 2),
        ("linear", (1, 3), torch.float32, 10**6, None, False, 2),
        ("linear", (1, 3), torch.float32, 10**6, None, True, 3),
        ("linear", (2, 3), torch.float32, 2000, None, False, 2),
        ("polynomial", (4,), torch.float64, 2000, None, False, 0),
        ("indexed", (4,), torch.float64, 40, None, False, 3),
    ],
)
def test_launches_are_counted(
    on_host: Any,
    kernel: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    rows: int,
    batch: int | None,
    clips: bool,
    expected: int,
) -> None:
    from gdcore._native.cuda_loop import launches

    assert launches(kernel, [torch.zeros(shape, dtype=dtype)], rows, batch, clips) == expected


@pytest.mark.parametrize(("rows", "epochs"), [(3, 4096), (2000, 2097), (2040, 257)])
def test_the_first_chunk_is_no_longer_than_its_rows_allow(
    on_host: Any, rows: int, epochs: int
) -> None:
    """Nobody has seen yet how long an epoch takes, and Ctrl-C waits for the end of a chunk."""
    columns = 15 if rows == 2040 else 1
    mine, _ = runners(linear(rows, columns, 1, torch.float64), "Adam")
    assert mine._chunk == epochs


def test_settings_that_were_changed_to_what_no_optimizer_takes(on_host: Any) -> None:
    mine, _ = runners(linear(10), "Adam")
    mine._optimizer.param_groups[0]["betas"] = (0.9, 1.0)
    with pytest.raises(ValueError, match="optimizer: expected betas below 1"):
        mine.run(1)
