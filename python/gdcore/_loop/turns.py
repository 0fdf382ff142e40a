"""Threads take turns with an optimizer.

Native code lets other threads run. Two that update the same parameters at the same time would both
begin from the same values, and one update would be lost.
"""

import contextlib
import os
import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch

__all__ = ["turn_of"]

_locks: WeakKeyDictionary[torch.optim.Optimizer, Any] = WeakKeyDictionary()
# Whoever held one in the parent is not there to give it back in the child.
os.register_at_fork(after_in_child=_locks.clear)


def turn_of(optimizer: Any) -> Any:
    """The lock that whoever trains with an optimizer holds meanwhile; one thread may hold it more
    than once. What is no optimizer has none.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        return contextlib.nullcontext()
    return _locks.setdefault(optimizer, threading.RLock())
