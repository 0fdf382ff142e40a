"""Step hooks of every optimizer, as of its namesake: what they see, and what they may change."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import gdcore

from ..devices import UPDATES_NOT_EMULATED
from .optimizers import MAKERS, NAMES, ours, start

pytestmark = [pytest.mark.usefixtures("device_of_updates"), UPDATES_NOT_EMULATED]

each = pytest.mark.parametrize("name", NAMES)


@each
def test_hooks_see_and_change_the_step(name: str) -> None:
    parameter = start()
    optimizer = ours(name, [parameter], lr=0.1)
    parameter.grad = torch.ones_like(parameter)
    seen: list[tuple[str, Any, Any, float]] = []

    def note(kind: str) -> Any:
        return lambda o, args, kwargs: seen.append((kind, args, kwargs, parameter[0].item()))

    hooks = [
        register_optimizer_step_pre_hook(note("global before")),
        optimizer.register_step_pre_hook(note("before")),
        optimizer.register_step_post_hook(note("after")),
        register_optimizer_step_post_hook(note("global after")),
    ]
    first = parameter[0].item()
    optimizer.step()
    second = parameter[0].item()
    assert [kind for kind, *_ in seen] == ["global before", "before", "after", "global after"]
    assert [value for *_, value in seen] == [first, first, second, second]
    assert second != first
    assert all(args == (optimizer,) and kwargs == {} for _, args, kwargs, _ in seen)
    for hook in hooks:
        hook.remove()
    optimizer.step()
    assert len(seen) == 4
    called = []
    optimizer.register_step_pre_hook(lambda o, args, kwargs: ((o, lambda: called.append(1)), {}))
    optimizer.step()
    assert called == [1]


# The ways to call a step that torch's have.
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "step()": lambda step, closure: step(),
    "step(None)": lambda step, closure: step(None),
    "step(closure)": lambda step, closure: step(closure),
    "step(closure=None)": lambda step, closure: step(closure=None),
    "step(closure=closure)": lambda step, closure: step(closure=closure),
}


HOOKS: dict[str, Callable[..., Any]] = {
    "looks on": lambda optimizer, args, kwargs: None,
    "adds a keyword": lambda o, args, kwargs: (args, {**kwargs, "closure": lambda: 7.0}),
    "leaves one keyword": lambda o, args, kwargs: (args[:1], {"closure": lambda: 7.0}),
    "gives it twice": lambda o, args, kwargs: ((o, None), {"closure": None}),
    "gives an unknown one": lambda o, args, kwargs: (args, {"other": 1}),
    "gives no pair": lambda o, args, kwargs: args,
}


def outcome_of(
    maker: str, name: str, call: str, hook: str, everywhere: bool, scheduled: bool
) -> tuple[Any, ...]:
    """What hooks before and after the step saw, and what came of it."""
    parameter = Parameter(torch.tensor([1.0, 2.0]))
    parameter.grad = torch.ones(2)
    optimizer = MAKERS[maker](name, [parameter], lr=0.1)
    if scheduled:
        torch.optim.lr_scheduler.StepLR(optimizer, 1)
    seen: list[Any] = []

    def closure() -> Tensor:
        seen.append("closure")
        return torch.tensor(3.0)

    def note(which: str, args: Any, kwargs: Any) -> None:
        assert args[0] is optimizer
        given = [value if value is None else "function" for value in args[1:]]
        named = {key: value if value is None else "function" for key, value in kwargs.items()}
        seen.append((which, given, named))

    def before(o: Any, args: Any, kwargs: Any) -> Any:
        note("before", args, kwargs)
        return HOOKS[hook](o, args, kwargs)

    add_before: Any = optimizer.register_step_pre_hook
    add_after: Any = optimizer.register_step_post_hook
    if everywhere:
        add_before, add_after = register_optimizer_step_pre_hook, register_optimizer_step_post_hook
    handles = [add_before(before), add_after(lambda _, *given: note("after", *given))]
    try:
        result = CALLS[call](optimizer.step, closure)
    except (TypeError, RuntimeError) as error:
        result = type(error)
    finally:
        for handle in handles:
            handle.remove()
    if isinstance(result, Tensor):
        result = result.item()
    return seen, result, (parameter[0] < 1.0).item()


@each
@pytest.mark.parametrize("everywhere", [False, True], ids=["own", "global"])
@pytest.mark.parametrize("scheduled", [False, True], ids=["alone", "with a scheduler"])
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("call", CALLS)
def test_hooks_get_what_the_step_was_called_with(
    name: str, call: str, hook: str, scheduled: bool, everywhere: bool
) -> None:
    mine, other = (outcome_of(m, name, call, hook, everywhere, scheduled) for m in MAKERS)
    assert mine == other


@each
@pytest.mark.parametrize("call", CALLS)
def test_a_step_without_hooks_is_called_as_torchs(name: str, call: str) -> None:
    for maker in MAKERS:
        parameter = Parameter(torch.tensor([1.0, 2.0]))
        parameter.grad = torch.ones(2)
        optimizer = MAKERS[maker](name, [parameter], lr=0.1)
        expected = 3.0 if call.count("closure") > call.count("None") else None
        assert CALLS[call](optimizer.step, lambda: 3.0) == expected
        assert parameter[0] < 1.0
        for bad in (lambda: optimizer.step(None, None), lambda: optimizer.step(other=None)):  # noqa: B023
            with pytest.raises(TypeError, match=r"step\(\)"):
                bad()


@each
@pytest.mark.parametrize("wrapped", [False, True])
def test_hooks_of_a_subclass_with_a_step_of_its_own_run_once(name: str, wrapped: bool) -> None:
    base: Any = getattr(gdcore.optim, name)

    class Own(base):  # type: ignore[misc]
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

        if wrapped:  # which copies what keeps torch from wrapping it
            step = functools.wraps(base.step)(step)

    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer, seen = Own([weight], lr=0.1), []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.step()
    assert seen == ["before", "after"]
