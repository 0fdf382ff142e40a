"""What a compressed fit holds in float64 between its runs, and what the user changes meanwhile."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gdcore._native.runners import CompressedRunner

from ..devices import NOT_EMULATED
from .problems import OPTIMIZERS, everything, linear, optimizer, same, twin

# No kernel of CUDA's is at work.
pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("cuts", [(1,) * 10, (3, 0, 7), (9, 1)])
def test_however_it_is_cut(name: str, dtype: torch.dtype, cuts: tuple[int, ...]) -> None:
    """The state stays in float64, shown or not."""
    whole = linear(100, 3, 2, dtype)
    cut = twin(whole)
    opts = [optimizer(name, p.parameters) for p in (whole, cut)]
    first, second = (CompressedRunner(p, o) for p, o in zip((whole, cut), opts, strict=True))
    expected = first.run(10).losses
    first.show()
    losses = []
    for epochs in cuts:
        losses.append(second.run(epochs).losses)
        second.show()
    assert torch.equal(torch.cat(losses), expected)
    assert same(everything(whole, opts[0]), everything(cut, opts[1]))


def test_nothing_is_written_before_it_is_shown() -> None:
    problem = linear(100)
    opt = optimizer("Adam", problem.parameters)
    runner = CompressedRunner(problem, opt)
    before, versions = everything(problem, opt), [p._version for p in problem.parameters]
    runner.show()
    runner.run(3)
    assert same(before, everything(problem, opt))
    assert versions == [p._version for p in problem.parameters]
    runner.show()
    assert all(a < p._version for a, p in zip(versions, problem.parameters, strict=True))


@pytest.mark.parametrize("what", ["parameter", "memory", "state", "state dict"])
def test_what_the_user_changes_counts(what: str) -> None:
    """As in a runner that is made after the change."""
    problem = linear(100)
    opt = optimizer("Adam", problem.parameters)
    runner = CompressedRunner(problem, opt)
    runner.run(3)
    runner.show()
    weight = problem.parameters[0]
    if what == "parameter":
        nn.init.ones_(weight)
    elif what == "memory":
        weight.data = torch.zeros_like(weight)
    elif what == "state":
        opt.state[weight]["exp_avg"].zero_()
    else:
        opt.load_state_dict(copy.deepcopy(opt.state_dict()))
        opt.state[weight]["step"].fill_(100.0)
    other = twin(problem)
    fresh = optimizer("Adam", other.parameters)
    fresh.load_state_dict(copy.deepcopy(opt.state_dict()))
    for each in (runner, made := CompressedRunner(other, fresh)):
        each.run(3)
        each.show()
    assert isinstance(made, CompressedRunner)
    assert same(everything(problem, opt), everything(other, fresh))


def zero_through_data(tensor: Tensor) -> None:
    tensor.data.zero_()


def zero_through_numpy(tensor: Tensor) -> None:
    tensor.detach().numpy()[...] = 0.0


WRITES = pytest.mark.parametrize("zero", [zero_through_data, zero_through_numpy])


@WRITES
@pytest.mark.parametrize("name", ["SGD with all options", "Adam", "RMSprop with all options"])
@pytest.mark.parametrize("what", ["parameter", "state", "lr"])
def test_what_moves_no_version_on_is_taken_over(
    what: str, name: str, zero: Callable[[Tensor], None], device: torch.device
) -> None:
    """Writes through ``.data`` and NumPy between two runs count, as in a runner made after them."""
    if device.type == "cuda" and zero is zero_through_numpy:
        pytest.skip("NumPy sees no memory of a device")
    problem = linear(100)
    opt = optimizer(name, problem.parameters)
    rate = torch.tensor(0.01, dtype=torch.float64, device="cpu")
    opt.param_groups[0]["lr"] = rate
    runner = CompressedRunner(problem, opt)
    runner.run(3)
    runner.show()
    weight = problem.parameters[0]
    state = opt.state[weight]
    written = {"parameter": [weight], "state": list(state.values()), "lr": [rate]}[what]
    for tensor in written:
        zero(tensor)
    before = everything(problem, opt)
    other = twin(problem)
    fresh = optimizer(name, other.parameters)
    fresh.load_state_dict(copy.deepcopy(opt.state_dict()))
    made = CompressedRunner(other, fresh)
    for each in (runner, made):
        each.run(3)
        each.show()
    assert same(everything(problem, opt), everything(other, fresh))
    assert torch.equal(weight, before[0]) == (what == "lr")
