"""A compressed fit has the losses of a float64 stepwise one, whatever the features are like."""

import resource
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdcore
from gdcore._native import factor as _factor
from gdcore._native.problem import Problem, StopRule
from gdcore._native.runners import CompressedRunner

from ..devices import NOT_EMULATED
from .problems import OPTIMIZERS, everything, linear, optimizer, twin

# It is on the CPU, wherever the rows are; only what it is compared with has kernels there.
pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

CLOSE = 1e-6
"""How far a compressed loss may be from a float64 stepwise one, relative to it."""


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    return made.to(torch.get_default_device())


def problem_of(x: Tensor, y: Tensor, weight: Tensor | None = None, *, mean: bool = True) -> Problem:
    start = random(y.shape[1], x.shape[1], seed=9).to(x.dtype)
    parameters = (nn.Parameter(start), nn.Parameter(y.new_zeros(y.shape[1])))
    return Problem("linear", ("weight", "bias"), parameters, x, y, weight, mean)


def with_condition(n: int, d: int, condition: float, graded: str) -> Tensor:
    """Singular values from 1 down, and the columns or rows of very different sizes."""
    u, _ = torch.linalg.qr(random(n, d))
    v, _ = torch.linalg.qr(random(d, d, seed=1))
    values = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), d, dtype=u.dtype)
    x = u * values
    if graded == "no":
        return (x @ v) * n**0.5
    if graded == "columns":
        return x * n**0.5
    return (u @ v) * torch.logspace(0, -12, n, dtype=u.dtype).unsqueeze(1) * n**0.5


def fits_exactly(x: Tensor, noise: float) -> Problem:
    y = x @ random(x.shape[1], 1, seed=2) + 0.5 + noise * random(len(x), 1, seed=3)
    return problem_of(x, y)


CASES: dict[str, Callable[[], Problem]] = {
    "noise": lambda: linear(500, 6, 1),
    "several outputs": lambda: linear(500, 6, 3),
    "a sum": lambda: linear(300, 4, 2, mean=False),
    "weights of rows": lambda: linear(500, 6, 1, weighted=True),
    "weights of their own": lambda: linear(500, 6, 3, weighted=True),
    "almost exact": lambda: fits_exactly(random(400, 3), 1e-7),
    "condition 1e12": lambda: fits_exactly(with_condition(300, 8, 1e12, "no"), 1e-3),
    "condition 1e12, columns graded": lambda: fits_exactly(
        with_condition(300, 8, 1e12, "columns"), 1e-3
    ),
    "rows graded": lambda: fits_exactly(with_condition(300, 8, 1e12, "rows"), 1e-3),
    "a column twice": lambda: fits_exactly(random(200, 3)[:, [0, 1, 2, 1]], 0.1),
    "a column of zeros": lambda: fits_exactly(random(200, 3) * torch.tensor([1.0, 0.0, 1.0]), 0.1),
    "a constant column": lambda: fits_exactly(
        torch.cat((random(200, 2), torch.ones(200, 1, dtype=torch.float64)), 1), 0.1
    ),
    "more parameters than rows": lambda: fits_exactly(random(5, 30), 0.1),
    "as many rows as columns": lambda: fits_exactly(random(8, 6), 0.1),
    "one row": lambda: fits_exactly(random(1, 3), 0.1),
    "all zeros": lambda: problem_of(torch.zeros(50, 3).double(), torch.zeros(50, 1).double()),
    "many blocks": lambda: fits_exactly(random(150_000, 7), 0.1),
}


def stable(problem: Problem) -> float:
    opt = torch.optim.SGD(problem.parameters, lr=0.0)
    rate = CompressedRunner(problem, opt).largest_stable_lr
    return 0.5 if rate is None else rate


@pytest.mark.parametrize("case", CASES)
def test_losses(case: str, stepwise: Any) -> None:
    problem = CASES[case]()
    epochs = 30 if problem.x.shape[0] > 10_000 else 2000
    lr = 0.7 * stable(problem)
    results = []
    for runner in (stepwise, CompressedRunner):
        each = twin(problem)
        opt = torch.optim.SGD(each.parameters, lr=lr)
        made = runner(each, opt)
        results.append(made.run(epochs).losses)
        made.show()
    stepwise, compressed = results
    assert compressed.dtype == torch.float64
    if case == "almost exact":
        assert stepwise[-1] < 1e-12 * stepwise[0]
    # Below that, a residual is so small beside its terms that their rounding shows in any order.
    floor = 1e-18 * stepwise[0]
    assert torch.all((compressed - stepwise).abs() <= CLOSE * stepwise.clamp(min=floor))


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if "centered" not in n])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_optimizer(name: str, dtype: torch.dtype, stepwise: Any) -> None:
    """Losses in float64 whatever the parameters' dtype; at the end they, and the states, are those
    of the float64 stepwise run, rounded. (RMSprop's centered variance is a difference that may
    vanish, and amplifies every rounding then: stepwise and eager differ as much.)
    """
    problem = linear(200, 4, 2, dtype)
    exact = twin(problem, torch.float64)
    mine, theirs = optimizer(name, problem.parameters), optimizer(name, exact.parameters)
    runner = CompressedRunner(problem, mine)
    losses = runner.run(60).losses
    expected = stepwise(exact, theirs).run(60).losses
    assert torch.all((losses - expected).abs() <= CLOSE * expected)
    runner.show()
    allowed = 1e-9 if dtype == torch.float64 else 2e-7
    for a, b in zip(everything(problem, mine), everything(exact, theirs), strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=allowed, atol=allowed)
    for parameter in problem.parameters:
        for key, value in mine.state[parameter].items():
            assert value.dtype == (torch.float32 if key == "step" else dtype)


def test_several_outputs_share_one_factorisation(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    triangle = _factor.triangle

    def counted(rows: Any, count: int, columns: int, **options: Any) -> Tensor:
        widths.append(columns)
        return triangle(rows, count, columns, **options)

    monkeypatch.setattr(gdcore._native.factor, "triangle", counted)
    problem = linear(100, 4, 3)
    CompressedRunner(problem, torch.optim.SGD(problem.parameters, lr=0.1))
    assert widths == [4 + 1 + 3]
    weight = random(100, 1).abs().expand(100, 3)
    CompressedRunner(problem._replace(weight=weight), torch.optim.SGD(problem.parameters, lr=0.1))
    assert widths == [8, 8]
    weighted = linear(100, 4, 3, weighted=True)
    CompressedRunner(weighted, torch.optim.SGD(weighted.parameters, lr=0.1))
    assert widths == [8, 8, 6, 6, 6]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["x", "y"])
@pytest.mark.parametrize("rows", [5, 300])
def test_data_that_are_not_finite(value: float, where: str, rows: int, stepwise: Any) -> None:
    """They diverge at once, as a stepwise fit does."""
    problem = linear(rows, 3, 1)
    getattr(problem, where)[rows // 2, 0] = value
    for runner in (stepwise, CompressedRunner):
        each = twin(problem)
        ran = runner(each, torch.optim.SGD(each.parameters, lr=0.1)).run(10)
        assert (ran.outcome, ran.epochs, ran.updates) == ("diverged", 1, 0)
        assert not ran.losses.isfinite().any()
        assert all(map(torch.equal, each.parameters, problem.parameters))


def test_divergence_is_that_of_the_parameters_dtype(stepwise: Any) -> None:
    """A loss beyond float32 ends a float32 fit, although it is held in float64."""
    outcomes = []
    for runner in (stepwise, CompressedRunner):
        problem = linear(100, 3, 1, torch.float32)
        ran = runner(problem, torch.optim.SGD(problem.parameters, lr=10.0)).run(1000)
        outcomes.append((ran.outcome, ran.epochs))
        assert all(p.isfinite().all() for p in problem.parameters)
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == "diverged"


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kernel", ["polynomial", "indexed"])
def test_other_kernels(kernel: str, weighted: bool, stepwise: Any) -> None:
    if kernel == "polynomial":
        x, parameters, index = random(200) / 2, (nn.Parameter(random(4)),), None
        y = x.sin()
    else:
        parameters = (nn.Parameter(random(2)), nn.Parameter(random(2)))
        index = torch.tensor([[0, 1, 3], [2, -1, 0]], device="cpu")
        x, y = random(200, 3), random(200, 2, seed=1)
    names = tuple(f"p{i}" for i in range(len(parameters)))
    weight = random(*y.shape, seed=2).abs() if weighted else None
    problem = Problem(kernel, names, parameters, x, y, weight, True, False, index)
    other = twin(problem)
    losses = stepwise(problem, optimizer("Adam", problem.parameters)).run(200).losses
    made = CompressedRunner(other, optimizer("Adam", other.parameters))
    assert torch.all((made.run(200).losses - losses).abs() <= CLOSE * losses)
    made.show()
    for a, b in zip(problem.parameters, other.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_what_cannot_be_compressed() -> None:
    parameters = tuple(nn.Parameter(p) for p in random(4))
    legendre = Problem("legendre", (), parameters, random(9), random(9), None, True)
    with pytest.raises(ValueError, match="affine"):
        CompressedRunner(legendre, torch.optim.SGD(parameters, lr=0.1))
    problem = linear(9, weighted=True)
    assert problem.weight is not None
    problem.weight[3, 0] = -1.0
    with pytest.raises(ValueError, match=r"^weight: .*negative"):
        CompressedRunner(problem, torch.optim.SGD(problem.parameters, lr=0.1))


def test_memory_beyond_the_data(device: torch.device) -> None:
    """At most 64 MB, and LAPACK's own buffers."""
    if device.type == "cuda":
        pytest.skip("it is the host's memory that is measured")
    x = torch.randn(1_500_000, 40)
    problem = problem_of(x[:100], x[:100, :1])
    opt = torch.optim.SGD(problem.parameters, lr=0.1)
    CompressedRunner(problem, opt)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    CompressedRunner(problem._replace(x=x, y=x[:, :1]), opt)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 80 * 1024


def test_it_stops_as_it_is_told() -> None:
    problem = linear(200)
    runner = CompressedRunner(problem, torch.optim.SGD(problem.parameters, lr=0.05))
    ran = runner.run(10_000, stop=StopRule(gradient_norm_below=1e-3))
    assert ran.outcome == "stopped"
    assert ran.updates == ran.epochs - 1
    assert 10 < ran.epochs < 10_000
