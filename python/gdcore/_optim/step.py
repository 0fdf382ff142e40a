"""What the optimizers share: a step that is one native call, and torch's own for the rest."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import optimizer as torch_optimizer

from .. import _modes, _ops
from . import namesake

_Group = dict[str, Any]
_States = dict[Tensor, dict[str, Any]]

_GLOBAL_PRE_HOOKS = torch_optimizer._global_optimizer_pre_hooks
_GLOBAL_POST_HOOKS = torch_optimizer._global_optimizer_post_hooks
_dispatch_modes = torch._C._len_torch_dispatch_stack
_profiling = torch._C._autograd._profiler_enabled


def _of(groups: list[_Group], parameters: list[Tensor]) -> list[_Group]:
    """The groups as far as they hold these parameters."""
    wanted = set(map(id, parameters))
    return [
        {**group, "params": [p for p in group["params"] if id(p) in wanted]} for group in groups
    ]


def _counted(step: Tensor) -> bool:
    """Whether kernels count in this tensor: on a device in float32 only."""
    return step.is_cpu or (step.is_cuda and step.dtype == torch.float32)


def _observed_where_needed(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step in torch's wrapper, which runs hooks and marks a profiler's range, if anyone looks.

    That wrapper takes longer than a small step. Hooks get the arguments in the form in which they
    were given, and may give them back in another.
    """
    observed = torch_optimizer.Optimizer.profile_hook_step(step)

    @functools.wraps(step)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A subclass's own step torch has wrapped itself, unless that was marked as this one is.
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _GLOBAL_PRE_HOOKS
            or _GLOBAL_POST_HOOKS
            or _profiling()
        ) and getattr(type(self).step, "__code__", None) is not observed.__code__:
            return observed(self, *args, **kwargs)
        return step(self, *args, **kwargs) if args or kwargs else step(self)

    wrapper.hooked = True  # type: ignore[attr-defined]  # so that torch does not wrap it
    return wrapper


class NativeStep(torch.optim.Optimizer):
    """The base of the optimizers here, before their namesake: only the step differs.

    Nothing is kept between steps but what torch keeps: groups and state are read anew at every
    step, natively, so that whatever has been done to them counts.
    """

    _namesake: ClassVar[Any]
    _kernels: ClassVar[_ops.Step]

    @_observed_where_needed
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one update of every parameter that has a gradient.

        Args:
            closure: reevaluates the model and returns the loss.

        Returns:
            What ``closure`` returned, or None.

        Raises:
            RuntimeError: a parameter whose elements overlap, or that shares memory with its
                gradient or state; a gradient of another shape; what the namesake refuses. No
                parameter or state has been changed then, unless it is the namesake that updates
                tensors of a device, and refuses one after another.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups, own = self.param_groups, self.__dict__
        if torch.compiler.is_dynamo_compiling():
            # torch leaves the graph at a step, too.
            from . import uncompiled

            uncompiled.run(self._step_with_care)
        elif "grad_scale" in own or "found_inf" in own or _dispatch_modes() > 0:
            self._step_with_care()
        else:
            left = self._kernels(groups, self.state)
            if left is not None:
                self._step_apart(groups, *left)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or set them to zero.

        Args:
            set_to_none: leave no tensors behind, which costs nothing.
        """
        # Of the 10 µs that torch's takes here, its profiler range is most.
        if not set_to_none or torch.compiler.is_compiling() or _profiling():
            super().zero_grad(set_to_none)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _step_with_care(self) -> None:
        """A step that torch looks on at, or that a GradScaler has prepared."""
        from . import scaling

        scale, overflow = scaling.prepared(self)
        if scale is None:
            self._update(self.param_groups, None, overflow)
            return
        with scaling.unscaled(self.param_groups, scale, overflow) as groups:
            self._update(groups, scale, overflow)

    def _update(self, groups: list[_Group], scale: Tensor | None, overflow: Tensor | None) -> None:
        traced = _modes.traced()
        left = None if traced else self._kernels(groups, self.state, None, overflow)
        if left is None and not traced:
            return
        if overflow is not None and overflow.item():  # which waits for a device
            return
        if left is not None:
            self._step_apart(groups, *left, scale)
        else:
            from . import torch_step

            torch_step.step(self, self.param_groups, scale)

    def _step_apart(
        self,
        groups: list[_Group],
        unsuited: list[Tensor],
        stateless: list[Tensor],
        scale: Tensor | None = None,
    ) -> None:
        """A step in which some parameters are torch's to update, or have no state yet.

        The native call has checked the others. What can still be refused, torch refuses: it goes
        first, and a state counts only once the step has been made.
        """
        # Not at import: few programs take more than one step this way.
        from . import rehearsal, settings, torch_step

        if unsuited:
            given, groups = groups, list(map(settings.plain, groups))
            if any(new is not old for new, old in zip(groups, given, strict=True)):
                left = self._kernels(groups, self.state)
                if left is None:
                    return
                unsuited, stateless = left
        rehearsal.expect_states(self.state, stateless)
        odd = [p for p in stateless if not isinstance(self.state.get(p, {}), dict)]
        unsuited = unsuited + odd
        theirs = set(map(id, unsuited))
        fresh: _States = {}
        for group in _of(groups, [p for p in stateless if id(p) not in theirs]):
            fresh.update(self._fresh_states(group))
        elsewhere = [p for p, own in fresh.items() if "step" in own and not _counted(own["step"])]
        for parameter in elsewhere:
            del fresh[parameter]
        unsuited = unsuited + elsewhere
        theirs.update(map(id, elsewhere))
        if unsuited:
            torch_step.step(self, _of(self.param_groups, unsuited), scale)
        native = [p for group in groups for p in group["params"] if id(p) not in theirs]
        if native and self._kernels(_of(groups, native), self.state, fresh) is not None:
            raise RuntimeError("a parameter, its gradient or its state changed during the step")
        for parameter, values in fresh.items():
            self.state[parameter].update(values)

    def _fresh_states(self, group: _Group) -> _States:
        """The states that the namesake gives to parameters at their first step."""
        return namesake.fresh_states(self, group)
