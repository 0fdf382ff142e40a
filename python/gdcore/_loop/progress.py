"""A bar that shows how far a fit is, and takes at most a hundredth of its time."""

import time
from typing import Any

_SECONDS_BETWEEN = 0.1
_SHARE = 100


def import_tqdm() -> Any:
    """tqdm's bar, for a terminal or a notebook."""
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "progress: expected tqdm to be installed; use pip install 'gdcore[progress]'",
            name="tqdm",
        ) from error
    return tqdm


class Progress:
    """Says how many epochs to run before the next look, and draws when it is time.

    A drawing takes 0.1 ms in a terminal and several in a notebook; the time between two of them is
    a hundred times what the last one took, and at least 0.1 s.
    """

    def __init__(self, tqdm: Any, epochs: int) -> None:
        begin = time.perf_counter()
        self._bar = tqdm(total=epochs, unit="epoch", mininterval=0, miniters=0)
        self._drawn = self._looked = time.perf_counter()
        self._wait = max(_SECONDS_BETWEEN, _SHARE * (self._drawn - begin))
        self._done = 0
        self.chunk = 1

    def update(self, done: int, loss: float) -> None:
        now = time.perf_counter()
        run, self._done = done - self._done, done
        wanted = run * self._wait / 2 / max(now - self._looked, 1e-9)
        self.chunk = max(1, min(4 * self.chunk, int(wanted)))
        if now - self._drawn >= self._wait:
            self._draw(loss)
            self._drawn = time.perf_counter()
            self._wait = max(_SECONDS_BETWEEN, _SHARE * (self._drawn - now))
        self._looked = time.perf_counter()

    def _draw(self, loss: float) -> None:
        self._bar.set_postfix_str(f"loss={loss:.4g}", refresh=False)
        self._bar.update(self._done - self._bar.n)

    def close(self, loss: float | None) -> None:
        """Show where it ended."""
        if loss is not None:
            self._draw(loss)
        self._bar.close()
