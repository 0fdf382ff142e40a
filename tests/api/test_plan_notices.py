"""A step made once sees everything that changes afterwards in its model, loss and optimizer."""

import copy
import functools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import prune
from torch.optim.lr_scheduler import StepLR
from torch.optim.optimizer import register_optimizer_step_post_hook

import gdcore

from ..devices import ON_CPU

pytestmark = pytest.mark.usefixtures("device")


class Setup:
    """A model, its loss and optimizer, and a step that has already been called twice."""

    def __init__(self, **options: Any) -> None:
        torch.manual_seed(0)
        self.linear = nn.Linear(2, 1)
        self.flatten = nn.Flatten(0, 0)  # leaves (n, k) as it is
        self.model = nn.Sequential(self.linear, self.flatten)
        self.loss_fn = nn.MSELoss()
        settings = {"lr": 0.1, "momentum": 0.5, **options}
        self.optimizer = torch.optim.SGD(self.model.parameters(), **settings)
        self.group = self.optimizer.param_groups[0]
        self.x, self.y = torch.randn(8, 2), torch.randn(8, 1)
        self.step = gdcore.train_step(self.model, self.loss_fn, self.optimizer, strict=True)
        self.step(self.x, self.y)
        self.step(self.x, self.y)

    def buffer(self, parameter: Tensor) -> Tensor:
        buffer = self.optimizer.state[parameter]["momentum_buffer"]
        assert isinstance(buffer, Tensor)
        return buffer

    def outcome(self) -> list[Tensor]:
        """What one more call gives: the loss, then the parameters."""
        loss = self.step(self.x, self.y)
        return [loss, *(p.detach().clone() for p in self.model.parameters())]


def new_weight(s: Setup) -> None:
    s.linear.weight = Parameter(torch.ones(1, 2))
    s.group["params"][0] = s.linear.weight


def new_layer(s: Setup) -> None:
    s.model[0] = nn.Linear(2, 1)
    s.optimizer.add_param_group({"params": list(s.model.parameters()), "lr": 0.3})


def flattened(s: Setup) -> None:
    s.flatten.end_dim = 1
    s.y = s.y.flatten().flip(0)


def no_bias(s: Setup) -> None:
    s.linear.bias = None  # type: ignore[assignment]


def weight_of_its_own(s: Setup) -> None:
    s.linear.weight = Parameter(torch.ones(1, 2))


def inside_of_another_layer(s: Setup) -> None:
    weight = s.linear.get_parameter("weight")
    s.linear._parameters = {"weight": weight, "bias": Parameter(torch.ones(1))}


def inside_of_another_sequence(s: Setup) -> None:
    layer = nn.Linear(2, 1)
    layer.bias = s.linear.bias
    s.model._modules = {"0": layer, "1": s.flatten}


def other_groups(s: Setup) -> None:
    s.optimizer.param_groups = [{**s.group, "lr": 0.3}]


def other_states(s: Setup) -> None:
    s.optimizer.state = defaultdict(dict)


def other_state(s: Setup) -> None:
    other = torch.optim.SGD(s.model.parameters(), lr=0.25, momentum=0.1, weight_decay=0.5)
    s.optimizer.load_state_dict(other.state_dict())


def new_buffer(s: Setup) -> None:
    s.optimizer.state[s.linear.weight]["momentum_buffer"] = torch.ones(1, 2)


def other_memory(s: Setup) -> None:
    s.linear.weight.data = torch.full((1, 2), 3.0)


def another_group(s: Setup) -> None:
    bias = s.group["params"].pop()
    s.optimizer.add_param_group({"params": [bias], "lr": 1.0, "momentum": 0.0})


CHANGES: dict[str, Callable[[Setup], Any]] = {
    "lr": lambda s: s.group.update(lr=0.01),
    "lr, a tensor": lambda s: s.group.update(lr=torch.tensor(0.01, device="cpu")),
    "momentum": lambda s: s.group.update(momentum=0.9),
    "no momentum": lambda s: s.group.update(momentum=0.0),
    "dampening": lambda s: s.group.update(dampening=0.5),
    "weight decay": lambda s: s.group.update(weight_decay=0.5),
    "nesterov": lambda s: s.group.update(nesterov=True),
    "maximize": lambda s: s.group.update(maximize=True),
    "a parameter's memory": other_memory,
    "a parameter's value": lambda s: nn.init.ones_(s.linear.weight),
    "a momentum buffer": new_buffer,
    "a momentum buffer's value": lambda s: s.buffer(s.linear.weight).fill_(9.0),
    "optimizer.state": lambda s: s.optimizer.state.clear(),
    "optimizer.state, another": other_states,
    "optimizer.param_groups": other_groups,
    "a group's parameters": lambda s: s.group.update(params=[s.linear.bias]),
    "load_state_dict": other_state,
    "a frozen parameter": lambda s: s.linear.weight.requires_grad_(False),
    "a parameter let go": lambda s: s.group["params"].pop(),
    "a parameter in a group of its own": another_group,
    "a parameter replaced": new_weight,
    "a parameter replaced in the model alone": weight_of_its_own,
    "a layer replaced": new_layer,
    "a layer's parameters": inside_of_another_layer,
    "a sequence's layers": inside_of_another_sequence,
    "no bias": no_bias,
    "reduction": lambda s: setattr(s.loss_fn, "reduction", "sum"),
    "Flatten": flattened,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_followed(change: str) -> None:
    """The next call does what a step made after the change does, and not what it did before."""
    setup, unchanged = Setup(), Setup()
    CHANGES[change](setup)
    fresh = copy.copy(setup)
    objects = (setup.model, setup.loss_fn, setup.optimizer)
    fresh.model, fresh.loss_fn, fresh.optimizer = copy.deepcopy(objects)
    fresh.step = gdcore.train_step(fresh.model, fresh.loss_fn, fresh.optimizer, strict=True)
    expected = fresh.outcome()
    actual = setup.outcome()
    assert all(map(torch.equal, actual, expected))
    before = unchanged.outcome()
    assert len(before) != len(actual) or not all(map(torch.equal, actual, before))


def test_a_rate_that_changes_in_place_is_followed() -> None:
    rate = torch.tensor(0.1, device="cpu")
    setup = Setup(lr=rate)
    rate.zero_()
    before = [p.detach().clone() for p in setup.model.parameters()]
    assert all(map(torch.equal, setup.outcome()[1:], before))
    rate.fill_(0.1)
    assert not any(map(torch.equal, setup.outcome()[1:], before))


def test_a_parameter_that_thaws_is_followed() -> None:
    setup = Setup()
    setup.linear.weight.requires_grad_(False)
    setup.outcome()
    frozen = setup.linear.weight.detach().clone()
    setup.linear.weight.requires_grad_()
    setup.outcome()
    assert not torch.equal(setup.linear.weight, frozen)


def hook(*_: Any) -> None:
    """Does nothing, but is there."""


class OtherLinear(nn.Linear):
    """A subclass, even one that changes nothing."""


class OtherLoss(nn.MSELoss):
    """Likewise."""


class OtherSGD(torch.optim.SGD):
    """Likewise."""


def parametrised(s: Setup) -> None:
    nn.utils.parametrize.register_parametrization(s.linear, "weight", nn.Identity())


def own(name: str) -> Callable[[Any], None]:
    return lambda module: setattr(module, name, hook)


def become(kind: type) -> Callable[[Any], None]:
    return lambda value: setattr(value, "__class__", kind)


REFUSED: dict[str, tuple[str, Callable[[Setup], Any]]] = {
    "hook on the Linear": ("model", lambda s: s.linear.register_forward_hook(hook)),
    "pre-hook on the Linear": ("model", lambda s: s.linear.register_forward_pre_hook(hook)),
    "backward hook": ("model", lambda s: s.linear.register_full_backward_hook(hook)),
    "backward pre-hook": ("model", lambda s: s.linear.register_full_backward_pre_hook(hook)),
    "hook on the Sequential": ("model", lambda s: s.model.register_forward_hook(hook)),
    "hook on the Flatten": ("model", lambda s: s.flatten.register_forward_hook(hook)),
    "hook on the loss": ("loss_fn", lambda s: s.loss_fn.register_forward_hook(hook)),
    "hook on a parameter": ("model", lambda s: s.linear.bias.register_hook(hook)),
    "hook after accumulation": (
        "model",
        lambda s: s.linear.weight.register_post_accumulate_grad_hook(hook),
    ),
    "hook before the update": (
        "optimizer",
        lambda s: s.optimizer.register_step_pre_hook(hook),
    ),
    "hook after the update": (
        "optimizer",
        lambda s: s.optimizer.register_step_post_hook(hook),
    ),
    "hook on every module": ("model", lambda _: register_module_forward_hook(hook)),
    "hook on every optimizer": (
        "optimizer",
        lambda _: register_optimizer_step_post_hook(hook),
    ),
    "forward of the Linear": ("model", lambda s: own("forward")(s.linear)),
    "forward of the Sequential": ("model", lambda s: own("forward")(s.model)),
    "forward of the Flatten": ("model", lambda s: own("forward")(s.flatten)),
    "forward of the loss": ("loss_fn", lambda s: own("forward")(s.loss_fn)),
    "step of the optimizer": ("optimizer", lambda s: own("step")(s.optimizer)),
    "class of the optimizer": ("optimizer", lambda s: become(OtherSGD)(s.optimizer)),
    "pruning": ("model", lambda s: prune.identity(s.linear, "weight")),
    "another layer": ("model", lambda s: s.model.__setitem__(1, nn.ReLU())),
    "dimensions of the Flatten": ("model", lambda s: setattr(s.flatten, "start_dim", 1)),
    "no reduction": ("loss_fn", lambda s: setattr(s.loss_fn, "reduction", "none")),
    "differentiable": ("optimizer", lambda s: s.group.update(differentiable=True)),
    "all frozen": ("optimizer", lambda s: s.model.requires_grad_(False)),
    "all let go": ("optimizer", lambda s: s.group["params"].clear()),
}

KNOWN_BY_WHAT_IT_DOES: dict[str, Callable[[Setup], Any]] = {
    "class of the Linear": lambda s: become(OtherLinear)(s.linear),
    "class of the loss": lambda s: become(OtherLoss)(s.loss_fn),
    "a layer more": lambda s: s.model.append(nn.Flatten(1, 1)),
    "a layer less": lambda s: s.model.pop(1),
    "parametrisation": parametrised,
}


@ON_CPU  # on CUDA a step knows models and losses by their names alone
@pytest.mark.parametrize("change", KNOWN_BY_WHAT_IT_DOES)
def test_what_is_no_longer_known_by_name_runs_as_before(change: str) -> None:
    changed, as_it_was = Setup(), Setup()
    KNOWN_BY_WHAT_IT_DOES[change](changed)
    for _ in range(3):
        torch.testing.assert_close(changed.outcome()[0], as_it_was.outcome()[0])
    torch.testing.assert_close(changed.model(changed.x), as_it_was.model(as_it_was.x))


def assert_refused(setup: Setup, argument: str, said: str = "") -> None:
    before = [(p.detach().clone(), p._version) for p in setup.model.parameters()]
    with pytest.raises((TypeError, ValueError), match=said or rf"^{argument}: expected .*got "):
        setup.step(setup.x, setup.y)
    for parameter, (value, version) in zip(setup.model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter._version == version


@pytest.mark.parametrize("change", REFUSED)
def test_what_can_no_longer_run_natively_is_refused(change: str, device: torch.device) -> None:
    setup = Setup()
    argument, apply = REFUSED[change]
    handle = apply(setup)
    removable = hasattr(handle, "remove") and not isinstance(handle, nn.Module)
    # Of these the CPU's steps look at what they do; CUDA's say that they do not.
    by_what_it_does = change in ("class of the optimizer", "another layer")
    said = "^x or y is not" if by_what_it_does and device.type == "cuda" else ""
    try:
        assert_refused(setup, argument, said)
        assert_refused(setup, argument, said)
    finally:
        if removable:
            handle.remove()
    if removable:
        assert setup.step(setup.x, setup.y).isfinite()


@pytest.mark.parametrize("kind", [nn.Linear, nn.Sequential, nn.Flatten, nn.MSELoss])
def test_another_forward_for_a_whole_class(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup()
    setup.step(setup.x, setup.y)
    with monkeypatch.context() as patch:
        patch.setattr(kind, "forward", lambda self, *inputs: inputs[0])
        assert_refused(setup, "loss_fn" if kind is nn.MSELoss else "model")
    assert setup.step(setup.x, setup.y).isfinite()


def test_another_step_for_a_whole_class(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup()
    setup.step(setup.x, setup.y)
    with monkeypatch.context() as patch:
        patch.setattr(type(setup.optimizer), "step", lambda self, closure=None: None)
        assert_refused(setup, "optimizer")
    assert setup.step(setup.x, setup.y).isfinite()


def test_a_step_around_that_of_a_scheduler() -> None:
    """`functools.wraps` copies the mark by which torch knows its own wrapper."""
    setup = Setup()
    StepLR(setup.optimizer, 1)
    assert setup.step(setup.x, setup.y).isfinite()
    inner = setup.optimizer.step

    @functools.wraps(inner)
    def outer(*arguments: Any) -> Any:
        return inner(*arguments)

    setup.optimizer.step = outer  # type: ignore[method-assign]
    assert_refused(setup, "optimizer")


HOOKS = [name for name in REFUSED if "hook" in name]


@pytest.mark.parametrize("change", HOOKS)
def test_a_hook_that_was_there_before_and_comes_back(change: str) -> None:
    """Hooks live in containers that stay when the hook has gone."""
    setup = Setup()
    argument, apply = REFUSED[change]
    apply(setup).remove()
    setup.step = gdcore.train_step(setup.model, setup.loss_fn, setup.optimizer, strict=True)
    setup.step(setup.x, setup.y)
    setup.step(setup.x, setup.y)
    handle = apply(setup)
    try:
        assert_refused(setup, argument)
    finally:
        handle.remove()
