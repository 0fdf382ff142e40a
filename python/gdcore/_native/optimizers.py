"""What a native step must know of an optimizer: that its own step is what runs, and its state."""

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.optim import lr_scheduler
from torch.optim import optimizer as torch_optimizer

from .. import optim
from .._modes import defaults_changed
from .._seen import Look

__all__ = ["fresh_state", "not_native", "recognise_optimizer", "rule_of"]

_GLOBAL_HOOKS = (
    torch_optimizer._global_optimizer_pre_hooks,
    torch_optimizer._global_optimizer_post_hooks,
)

_RULES: dict[type, str] = {
    torch.optim.SGD: "sgd",
    torch.optim.RMSprop: "rmsprop",
    torch.optim.Adam: "adam",
    torch.optim.AdamW: "adam",
    optim.SGD: "sgd",
    optim.RMSprop: "rmsprop",
    optim.Adam: "adam",
    optim.AdamW: "adam",
}


def _written_in(module: ModuleType, function: Any) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename == module.__file__


def _unhooked(step: Any) -> Any:
    """An optimizer class's step, out of what torch wraps around it at the first instance."""
    hooked = getattr(step, "hooked", False) and _written_in(torch_optimizer, step)
    return step.__wrapped__ if hooked else step


_STEPS = {kind: _unhooked(kind.step) for kind in _RULES}  # type: ignore[attr-defined]


def recognise_optimizer(optimizer: Any, seen: Look) -> None:
    """Check that stepping an optimizer runs its class's own step and nothing else.

    Raises:
        TypeError: it is none of SGD, RMSprop, Adam and AdamW, of torch or `gdcore.optim`.
        ValueError: it carries hooks or a replaced step.
    """
    kind = seen.type(optimizer)
    if kind not in _RULES:
        name = getattr(optimizer, "__name__", None)
        raise TypeError(
            "optimizer: expected SGD, RMSprop, Adam or AdamW of torch.optim or gdcore.optim, got "
            + (f"the class {name} itself" if name else kind.__name__)
        )
    state = optimizer.__dict__
    own = (
        seen.item(state, "_optimizer_step_pre_hooks"),
        seen.item(state, "_optimizer_step_post_hooks"),
    )
    if not all(seen.empty(hooks) for hooks in (*own, *_GLOBAL_HOOKS)):
        raise ValueError("optimizer: expected no step hooks, got one")
    own_step = _unhooked(seen.attribute(kind, "step")) is _STEPS[kind]
    replaced = seen.item(state, "step")
    if replaced is not None:
        # torch's learning-rate schedulers wrap the step to see that it was called.
        own_step = (
            own_step
            and _written_in(lr_scheduler, replaced)
            and _unhooked(replaced.__wrapped__) is _STEPS[kind]
        )
    if not own_step:
        raise ValueError(f"optimizer: expected {kind.__name__}'s own step, got a replaced one")


def not_native(groups: Iterable[dict[str, Any]]) -> str | None:
    """Why torch's own step must make the updates of these groups, or None."""
    for group in groups:
        for name in ("capturable", "differentiable"):
            if group.get(name):
                return f"optimizer: expected {name}=False in a native loop, got True"
        if any(isinstance(beta, Tensor) for beta in group.get("betas", ())):
            return "optimizer: expected betas that are numbers in a native loop, got tensors"
    return None


def rule_of(optimizer: torch.optim.Optimizer) -> str:
    """The rule whose kernel makes this optimizer's updates."""
    return _RULES[type(optimizer)]


def fresh_state(optimizer: torch.optim.Optimizer, group: dict[str, Any], p: Tensor) -> Any:
    """The state that the optimizer gives to a parameter at its first step, before that step.

    SGD's momentum buffer appears only at the end of its first step: what this one holds is not
    meant to be read.
    """
    with torch.inference_mode(False):  # it outlives the mode
        if _RULES[type(optimizer)] == "sgd":
            return {"momentum_buffer": torch.empty_like(p, requires_grad=False)}
        namesake = getattr(optimizer, "_namesake", type(optimizer))
        # torch makes states for those that have a gradient. This one has, and the same memory.
        like = torch.empty_like(p, requires_grad=False) if p.is_inference() else p.detach()
        like.grad = like.detach()
        maker: Any = object.__new__(namesake)
        maker.__dict__.update(optimizer.__dict__, state=defaultdict(dict))
        # Steps are counted on the CPU, whatever the default device.
        with torch.device("cpu") if defaults_changed() else contextlib.nullcontext():
            maker._init_group({**group, "params": [like]}, [], [], [], [], [], [])
        return dict(maker.state[like])
