"""Threads take turns with an optimizer.

Native code lets other threads run. Two that update the same parameters at the same time would both
begin from the same values, and one update would be lost.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch

__all__ = ["after_fork", "turn_of"]

_locks: WeakKeyDictionary[torch.optim.Optimizer, Any] = WeakKeyDictionary()
_forked = False


def _begin_child() -> None:
    global _forked
    _forked = True
    # Whoever held one in the parent is not there to give it back, unless it is the thread that
    # forked. Not new ones: a `train_step` keeps its own.
    for lock in list(_locks.values()):
        if not lock._is_owned():
            lock._at_fork_reinit()


os.register_at_fork(after_in_child=_begin_child)


def turn_of(optimizer: Any) -> Any:
    """The lock that whoever trains with an optimizer holds meanwhile; one thread may hold it more
    than once. What is no optimizer has none.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        return contextlib.nullcontext()
    return _locks.setdefault(optimizer, threading.RLock())


def after_fork() -> Any:
    """In a forked process, one thread for what torch does meanwhile.

    The threads of its pool stayed behind in the parent, and an operation that counts on them would
    wait for ever.
    """
    return _one_thread() if _forked else contextlib.nullcontext()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
