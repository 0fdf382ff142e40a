"""The ways in which values leave and enter PyTorch without an operation, during a forward."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .trace import Tracer

__all__ = ["Watcher"]

_LEAVING = """
    tolist numpy __array__ __dlpack__ data_ptr storage untyped_storage _typed_storage __repr__
    __format__ __deepcopy__ __reduce_ex__
"""
_ESCAPES = frozenset(_LEAVING.split())
_CHANGES = {"__set__", "requires_grad_", "set_"}
_GRAD: Any = vars(torch._C.TensorBase)["grad"].__get__
_ONE_HOT: Any = torch.nn.functional.one_hot
_SET_DATA: Any = vars(torch._C.TensorBase)["data"].__set__


class Watcher(TorchFunctionMode):
    """Sees values leave PyTorch by ways that dispatch no operation."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _ESCAPES and args:
            self.tracer.reads = True
            self.tracer.input.read |= self.tracer.input.holds(args[0])
            if self.tracer.label(args[0]) is not None:
                self.tracer.refuse(f"{name}() of a value that depends on trained parameters")
        elif name == "__get__" and func == _GRAD and self.tracer.label(args[0]) is not None:
            self.tracer.refuse("the forward reads a parameter's grad")
        elif name in _CHANGES and args and self.tracer.label(args[0]) is not None:
            self.tracer.refuse("the forward changes a parameter")
        elif func == _SET_DATA and not self.tracer.has_made(args[0]):
            self.tracer.refuse("the forward writes to a tensor that was there before it")
        read = self.tracer.input.read
        out = func(*args, **(kwargs or {}))
        if func == _ONE_HOT and max((*args[1:], *(kwargs or {}).values()), default=-1) > 0:
            self.tracer.input.read = read  # only to see that no class is beyond those
        return out
