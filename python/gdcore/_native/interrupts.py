"""Ctrl-C that waits until what is being done is whole.

Python runs a signal's handler between any two instructions of the main thread, so that its
exception could come between an update and the note of it. While an `Interrupts` is held, Ctrl-C is
only remembered; it counts as soon as it is let go. Other threads see no signals.
"""

# Those of the signal module, which take 10 µs for its enumerations.
import _signal  # type: ignore[import-not-found]
import threading
from typing import Any

_active: list["Interrupts"] = []


class Interrupts:
    """Entered around a loop; `hold` and `release` around what must be whole."""

    def __init__(self) -> None:
        self._handler: Any = None
        self._held = False
        self.waiting: tuple[Any, Any] | None = None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            handler = _signal.getsignal(_signal.SIGINT)
            if callable(handler):
                self._handler = handler
                _active.append(self)
                _signal.signal(_signal.SIGINT, self._arrive)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handler is not None:
            _signal.signal(_signal.SIGINT, self._handler)
            _active.remove(self)
            self._handler = None

    def _arrive(self, number: Any, frame: Any) -> None:
        if self._held:
            self.waiting = number, frame
        else:
            self._handler(number, frame)

    def hold(self) -> None:
        self._held = True

    def release(self) -> None:
        """Let it count what came meanwhile: the handler may raise."""
        self._held = False
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            self._handler(*waiting)


def waiting() -> bool:
    """Whether a held Ctrl-C waits for this thread to stop."""
    return (
        bool(_active)
        and _active[-1].waiting is not None
        and threading.current_thread() is threading.main_thread()
    )
