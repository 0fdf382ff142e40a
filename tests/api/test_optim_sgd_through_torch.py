"""What gdcore.optim.SGD's kernels do not take goes through torch, with torch's own numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import gdcore

pytestmark = pytest.mark.usefixtures("device_of_updates")

STEPS = 5
OPTIONS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.9, "dampening": 0.3},
    {"maximize": True},
]


def run(
    kind: type[torch.optim.SGD],
    values: list[Tensor],
    grads: list[list[Tensor]],
    options: dict[str, Any],
) -> tuple[list[Tensor], list[Any]]:
    parameters = [Parameter(v.clone()) for v in values]
    optimizer = kind(parameters, **{"lr": 0.1, "foreach": False, **options})
    for step in grads:
        for parameter, grad in zip(parameters, step, strict=True):
            parameter.grad = grad.clone()
        optimizer.step()
    state = [optimizer.state[p].get("momentum_buffer") for p in parameters]
    return [p.detach() for p in parameters], state


def assert_torch_numbers(
    values: list[Tensor], grads: list[list[Tensor]], options: dict[str, Any]
) -> None:
    ours, our_state = run(gdcore.optim.SGD, values, grads, options)
    theirs, their_state = run(torch.optim.SGD, values, grads, options)
    for actual, expected, before in zip(ours, theirs, values, strict=True):
        assert actual.dtype == expected.dtype
        assert_equal(actual, expected)
        assert not torch.equal(actual, before)
    for actual, expected in zip(our_state, their_state, strict=True):
        assert (actual is None) == (expected is None)
        if expected is not None:
            assert_equal(actual.to_dense(), expected.to_dense())


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    """But for the order in which CUDA adds the rows of a sparse gradient."""
    slack = 0.0 if actual.is_cpu else 12 * STEPS * torch.finfo(actual.dtype).eps
    torch.testing.assert_close(actual, expected, rtol=slack, atol=slack)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_other_dtypes(dtype: torch.dtype, options: dict[str, Any]) -> None:
    values = [torch.randn(7, dtype=dtype), torch.randn(2, 3, dtype=dtype)]
    grads = [[torch.randn_like(v) for v in values] for _ in range(STEPS)]
    assert_torch_numbers(values, grads, {**options, "weight_decay": 0.1})


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_sparse_gradients(options: dict[str, Any]) -> None:
    values = [torch.randn(6, 2)]

    def grad() -> Tensor:
        rows = torch.tensor([[0, 3, 3]])
        return torch.sparse_coo_tensor(rows, torch.randn(3, 2), (6, 2), check_invariants=True)

    grads = [[grad()] for _ in range(STEPS)]
    assert_torch_numbers(values, grads, options)


def test_an_embedding_with_sparse_gradients_learns() -> None:
    results = []
    for kind in (gdcore.optim.SGD, torch.optim.SGD):
        torch.manual_seed(0)
        embedding = torch.nn.Embedding(5, 3, sparse=True)
        optimizer = kind(embedding.parameters(), lr=0.1)
        for _ in range(STEPS):
            optimizer.zero_grad()
            embedding(torch.tensor([1, 1, 4])).square().sum().backward()
            optimizer.step()
        results.append(embedding.weight.detach())
    assert torch.equal(*results)


def test_a_group_that_mixes_native_and_other_dtypes() -> None:
    values = [torch.tensor([1.0, 2.0, 4.0]), torch.randn(4, dtype=torch.complex64)]
    grads = [[torch.ones(3), torch.randn_like(values[1])] for _ in range(STEPS)]
    assert_torch_numbers(values, grads, {"momentum": 0.5, "lr": 0.25})


def test_groups_of_which_one_is_native() -> None:
    results = []
    start = [torch.randn(4, dtype=torch.complex64), torch.ones(4)]
    grads = [torch.randn(4, dtype=torch.complex64), torch.tensor([1.0, 2.0, 4.0, 8.0])]
    for kind in (gdcore.optim.SGD, torch.optim.SGD):
        parameters = [Parameter(v.clone()) for v in start]
        optimizer = kind([{"params": [p]} for p in parameters], lr=0.25)
        for _ in range(STEPS):
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad.clone()
            optimizer.step()
        results.append([p.detach() for p in parameters])
    assert all(map(torch.equal, *results))


def gradient_through_steps(
    kind: type[torch.optim.SGD], options: dict[str, Any]
) -> list[Tensor | None]:
    """Derivatives of a loss after differentiable steps, in the start and in each gradient.

    (torch detaches the first momentum buffer, so the first gradient may have none.)
    """
    start = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True)
    grads = [torch.full_like(start, s).requires_grad_() for s in (0.5, 1.0, 1.5)]
    parameter = start.clone()
    optimizer = kind([start], lr=0.1, weight_decay=0.1, differentiable=True, **options)
    optimizer.param_groups[0]["params"] = [parameter]
    for grad in grads:
        parameter.grad = grad.clone()
        optimizer.step()
    loss = parameter.square().sum()
    return list(torch.autograd.grad(loss, (start, *grads), allow_unused=True))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_differentiable(options: dict[str, Any]) -> None:
    ours = gradient_through_steps(gdcore.optim.SGD, options)
    theirs = gradient_through_steps(torch.optim.SGD, options)
    for actual, expected in zip(ours, theirs, strict=True):
        assert (actual is None) == (expected is None)
        assert actual is None or expected is None or torch.equal(actual, expected)
    assert all(g is not None and (g != 0).all() for g in (ours[0], *ours[2:]))


def scaled_training(
    kind: type[torch.optim.SGD], poison: Callable[[int], float], momentum: float
) -> list[Tensor]:
    """Steps under a gradient scaler, which tells a fused optimizer what to divide by."""
    parameter = Parameter(torch.tensor([1.0, 2.0, 3.0]))
    optimizer = kind([parameter], lr=0.125, momentum=momentum, fused=True)
    scaler = torch.amp.GradScaler(parameter.device.type, init_scale=4.0)
    found = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = (parameter**2).sum() * poison(step)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        found.append(parameter.detach().clone())
    return found


@pytest.mark.parametrize(("bad_step", "momentum"), [(None, 0.5), (0, 0.0), (2, 0.5)])
def test_a_gradient_scaler_is_obeyed(bad_step: int | None, momentum: float) -> None:
    """Gradients are unscaled, and a step whose gradients overflow is left out.

    (Not the first with momentum: torch's fused update then leaves the buffer uninitialised.)
    """

    def poison(step: int) -> float:
        return float("inf") if step == bad_step else 1.0

    ours = scaled_training(gdcore.optim.SGD, poison, momentum)
    theirs = scaled_training(torch.optim.SGD, poison, momentum)
    for actual, expected in zip(ours, theirs, strict=True):
        assert actual.isfinite().all()
        # Steps that scale by powers of two round alike; a fused multiply-add may save one.
        assert torch.allclose(actual, expected, rtol=STEPS * 12 * 2.0**-24, atol=0.0)


@pytest.mark.parametrize("choice", [{"foreach": True}, {"fused": True}, {"foreach": False}])
def test_torch_implementations_may_be_asked_for(choice: dict[str, bool]) -> None:
    results = []
    grads = [torch.randn(50) for _ in range(STEPS)]
    start = torch.randn(50)
    for options in ({}, choice):
        parameter = Parameter(start.clone())
        optimizer = gdcore.optim.SGD([parameter], lr=0.1, momentum=0.9, **options)
        for grad in grads:
            parameter.grad = grad.clone()
            optimizer.step()
        results.append(parameter.detach())
    assert torch.equal(*results)
