"""What an optimizer refuses as its namesake does, with nothing changed; what it leaves to torch."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import gdcore

from ..devices import UPDATES_ON_CPU
from .optimizers import FULL, NAMES, advance, copies, everything, ours, theirs
from .refusal import nothing_written, refused

pytest.importorskip("expecttest", reason="torch's own cases need the test extra")

from torch.testing._internal.common_optimizers import optim_db

pytestmark = pytest.mark.usefixtures("device_of_updates")

each = pytest.mark.parametrize("name", NAMES)
averaging = pytest.mark.parametrize("name", ["RMSprop", "Adam", "AdamW"])


def with_grad(value: Tensor, grad: Tensor) -> Parameter:
    parameter = Parameter(value)
    parameter.grad = grad
    return parameter


def torch_errors() -> Iterator[Any]:
    for info in optim_db:
        name = info.optim_cls.__name__
        if name in NAMES:
            for error in info.optim_error_inputs_func(device="cpu", dtype=torch.float32):
                yield pytest.param(name, error, id=f"{name}: {error.error_regex}")


def raised(make: Callable[[], object]) -> tuple[type[Warning | Exception], str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Exception) as info:  # noqa: PT011 (compared below)
            make()
    return type(info.value), str(info.value)


@UPDATES_ON_CPU  # they are refused before there is a step
@pytest.mark.parametrize(("name", "error"), list(torch_errors()))
def test_what_torch_expects_to_be_refused(name: str, error: Any) -> None:
    inputs = error.optimizer_error_input
    parameters = [Parameter(torch.ones(2))] if inputs.params is None else inputs.params
    outcomes = [
        raised(lambda kind=kind: kind(parameters, **inputs.kwargs))  # type: ignore[misc]
        for kind in (getattr(gdcore.optim, name), getattr(torch.optim, name))
    ]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] is error.error_type


def bad_parameters() -> dict[str, Callable[[], Parameter]]:
    def other_shape() -> Parameter:
        parameter = with_grad(torch.ones(4), torch.ones(4))
        parameter.data = torch.ones(3)
        return parameter

    def own_gradient() -> Parameter:
        value = torch.ones(3)
        return with_grad(value, value)

    return {
        "expanded": lambda: with_grad(torch.ones(1).expand(3), torch.ones(3)),
        "overlapping": lambda: with_grad(
            torch.ones(6).as_strided((3, 2), (1, 1)), torch.ones(3, 2)
        ),
        "of another shape than its gradient": other_shape,
        "its own gradient": own_gradient,
    }


# What has strides of its own is torch's on a device, and not rehearsed there.
DENSE = ("of another shape than its gradient", "its own gradient")
BAD = [pytest.param(bad, "cpu") for bad in bad_parameters()]
BAD += [pytest.param(bad, "emulated") for bad in DENSE]
BAD += [pytest.param(bad, "cuda", marks=pytest.mark.cuda) for bad in DENSE]


@each
@pytest.mark.parametrize("stepped", [False, True], ids=["first step", "later step"])
@pytest.mark.parametrize(("bad", "device_of_updates"), BAD, indirect=["device_of_updates"])
def test_a_bad_parameter_stops_the_step(name: str, bad: str, stepped: bool) -> None:
    good = Parameter(torch.ones(2))
    optimizer = ours(name, [good], **FULL[name])
    advance(optimizer, range(1))
    if not stepped:
        optimizer.state.clear()
    parameter = bad_parameters()[bad]()
    optimizer.add_param_group({"params": [parameter], "momentum": 0.0})
    argument = "grad" if "shape" in bad else "parameter"
    with nothing_written(good, parameter, optimizer=optimizer), refused(RuntimeError, argument):
        optimizer.step()
    parameter.grad = None
    optimizer.step()


@averaging
@pytest.mark.parametrize("key", ["square_avg", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"])
def test_a_state_that_shares_memory(name: str, key: str) -> None:
    parameter = Parameter(torch.ones(3))
    optimizer = ours(name, [parameter], **FULL[name])
    advance(optimizer, range(1))
    if key not in optimizer.state[parameter]:
        pytest.skip("not a state of this optimizer")
    optimizer.state[parameter][key] = parameter.detach()
    with nothing_written(parameter, optimizer=optimizer), refused(RuntimeError, key, "apart from"):
        optimizer.step()
    optimizer.state[parameter][key] = torch.zeros(2)
    with nothing_written(parameter, optimizer=optimizer), refused(RuntimeError, key, "shape (3,)"):
        optimizer.step()


def sparse() -> Tensor:
    return torch.sparse_coo_tensor([[0, 2]], torch.ones(2), (3,), check_invariants=True)


@averaging
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly")  # until torch 2.12
def test_sparse_gradients_are_refused_as_in_torch(name: str) -> None:
    def build(make: Callable[..., torch.optim.Optimizer]) -> torch.optim.Optimizer:
        good = with_grad(torch.ones(2), torch.ones(2))
        return make(name, [good, with_grad(torch.ones(3), sparse())], lr=0.1)

    optimizer = build(ours)
    good = optimizer.param_groups[0]["params"][0]
    with nothing_written(good, optimizer=optimizer):
        kind, message = raised(optimizer.step)
    assert kind is RuntimeError
    assert (kind, message) == raised(build(theirs).step)
    assert not optimizer.state


@each
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("option", ["plain", "full", "maximize"])
def test_complex_parameters_are_as_in_torch(name: str, dtype: torch.dtype, option: str) -> None:
    options = {"plain": {}, "full": FULL[name], "maximize": {"maximize": True}}[option]
    values = [torch.randn(5, dtype=dtype), torch.randn(3, dtype=torch.float64)]
    results = []
    for make in (ours, theirs):
        optimizer = make(name, copies(values), **{"foreach": False, **options})
        for step in range(3):
            for parameter in optimizer.param_groups[0]["params"]:
                parameter.grad = torch.full_like(parameter, 0.5 + step)
            optimizer.step()
        results.append([t.detach() for t in everything(optimizer)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(
            actual,
            expected,
            rtol=1e-12 if expected.is_floating_point() and expected.dtype == torch.float64 else 0,
            atol=0,
        )


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_fused_refuses_complex_parameters_as_torch_does(name: str) -> None:
    parameter = with_grad(
        torch.ones(2, dtype=torch.complex64), torch.ones(2, dtype=torch.complex64)
    )
    other = with_grad(torch.ones(2), torch.ones(2))
    optimizer = ours(name, [other, parameter], lr=0.1, fused=True)
    with nothing_written(parameter, other, optimizer=optimizer):
        outcome = raised(optimizer.step)
    assert outcome == raised(theirs(name, [parameter], lr=0.1, fused=True, foreach=None).step)
    assert "floating point" in outcome[1]


@UPDATES_ON_CPU
@averaging
def test_capturable_is_refused_on_the_cpu_as_in_torch(name: str) -> None:
    parameter = with_grad(torch.ones(2), torch.ones(2))
    optimizer = ours(name, [parameter], lr=0.1, capturable=True)
    with nothing_written(parameter, optimizer=optimizer):
        outcome = raised(optimizer.step)
    assert outcome == raised(theirs(name, [parameter], lr=0.1, capturable=True).step)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_foreach_refuses_a_tensor_rate_set_later(name: str) -> None:
    optimizers = []
    for make in (ours, theirs):
        parameter = with_grad(torch.ones(2), torch.ones(2))
        optimizer = make(name, [parameter], lr=0.1, foreach=True)
        optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
        optimizers.append(optimizer)
    with nothing_written(optimizers[0].param_groups[0]["params"][0], optimizer=optimizers[0]):
        outcome = raised(optimizers[0].step)
    assert outcome == raised(optimizers[1].step)
    assert outcome[0] is RuntimeError


@each
def test_differentiable_steps_are_torch_s(name: str) -> None:
    results = []
    for make in (ours, theirs):
        start = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True)
        optimizer = make(name, [start], lr=0.1, differentiable=True)
        parameter = start.clone()
        optimizer.param_groups[0]["params"] = [parameter]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(3):
                parameter.grad = start * 0.5 + 1.5
                optimizer.step()
        (slope,) = torch.autograd.grad(parameter.square().sum(), start)
        results.append(slope)
    assert torch.equal(*results)
    assert results[0].isfinite().all()


@UPDATES_ON_CPU  # torch refuses them with foreach, its default elsewhere
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_betas_that_are_tensors_are_torch_s(name: str) -> None:
    results = []
    for make in (ours, theirs):
        torch.manual_seed(0)
        betas = (torch.tensor(0.8), torch.tensor(0.9))
        optimizer = make(name, [Parameter(torch.randn(5))], lr=0.1, betas=betas)
        advance(optimizer, range(3))
        results.append(everything(optimizer))
    assert all(map(torch.equal, *results))


@averaging
def test_a_state_that_an_option_needs_later_is_missing_as_in_torch(name: str) -> None:
    option = {"momentum": 0.9} if name == "RMSprop" else {"amsgrad": True}
    outcomes = []
    for make in (ours, theirs):
        optimizer = make(name, [Parameter(torch.ones(3))], lr=0.1)
        advance(optimizer, range(1))
        optimizer.param_groups[0].update(option)
        outcomes.append(raised(optimizer.step))
    assert outcomes[0] == outcomes[1]


@each
def test_what_a_scaler_left_on_the_optimizer_is_honoured(name: str) -> None:
    """Attributes that torch's fused steps read: not ignored where they are set by hand."""
    parameter = with_grad(torch.ones(3), torch.full((3,), 8.0))
    optimizer = ours(name, [parameter], lr=0.1)
    optimizer.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]
    if name == "SGD":
        optimizer.param_groups[0]["fused"] = True
        optimizer.step()
    elif name == "RMSprop":
        pytest.skip("torch.optim.RMSprop reads none")
    else:
        with pytest.raises(AssertionError, match="found_inf"):
            optimizer.step()
    assert parameter.tolist() == [1.0, 1.0, 1.0]


@each
def test_inference_tensors(name: str) -> None:
    with torch.inference_mode():
        value = torch.ones(3)
    value.grad = torch.ones(3)
    optimizer = ours(name, [value], lr=0.1)
    with refused(RuntimeError, "parameter", "inference tensor"):
        optimizer.step()
    assert value.tolist() == [1.0, 1.0, 1.0]
    assert not optimizer.state
    with torch.inference_mode():
        optimizer.step()
    assert value[0] != 1.0


@each
def test_under_fake_tensors_and_compile(name: str) -> None:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        parameter = with_grad(torch.ones(3), torch.ones(3))
        optimizer = ours(name, [parameter], lr=0.1)
        optimizer.step()
        assert parameter.shape == (3,)


ODD: dict[str, dict[str, Any]] = {
    "a rate of two elements": {"lr": torch.tensor([0.1, 0.2])},
    "no rate": {"lr": None},
    "a rate in words": {"lr": "0.1"},
    "a half rate": {"lr": torch.tensor(0.3, dtype=torch.bfloat16)},
    "a whole rate": {"lr": torch.tensor(1)},
    "one beta": {"betas": (0.9,)},
    "a beta of one": {"betas": (1.0, 0.999)},
}


@pytest.mark.parametrize("odd", ODD)
@each
def test_settings_of_other_kinds_are_as_in_torch(name: str, odd: str) -> None:
    """Set later, where nothing checks them: torch's numbers, or its error."""
    outcomes: list[Any] = []
    for make in (ours, theirs):
        optimizer = make(name, copies([torch.ones(3, dtype=torch.float64)]), **FULL[name])
        advance(optimizer, range(1))
        optimizer.param_groups[0].update(ODD[odd])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                advance(optimizer, range(1, 3))
            except Exception as error:
                outcomes.append(type(error))
                continue
        outcomes.append(everything(optimizer))
    mine, other = outcomes
    if isinstance(other, type):
        assert mine is other
    else:
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=0.0)
