"""The memory that a training takes beyond its data, each measured in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from available import JAX, installed
from table import Table, digits

SUITE = "memory"
SIZE, QUICK_SIZE, EPOCHS = (1_000_000, 64), (100_000, 64), 3
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# So many that ``fit`` compresses the data beforehand.
LONG_EPOCHS = 300
FIT = "gdcore.fit"
LONG_FIT = f"{FIT}, {LONG_EPOCHS} epochs"
METHODS = ("stepwise", "compressed")
COMPRESS = "gdcore.compress"
FIGURE, COMPRESS_FIGURE = f"{FIT} adds", f"{COMPRESS} adds"


def contenders(quick: bool) -> list[str]:
    """A quick run has few: each takes a process that loads everything anew."""
    if quick:
        return [FIT, LONG_FIT, "eager"]
    named = [f"{FIT}, {method}" for method in METHODS]
    return [FIT, LONG_FIT, *named, COMPRESS, "eager", *([JAX] if installed(JAX) else [])]


def table(quick: bool) -> Table:
    """Every contender at one size."""
    n, d = QUICK_SIZE if quick else SIZE
    names = contenders(quick)
    with ThreadPoolExecutor(2) as two:  # each in a process of its own
        added = dict(zip(names, two.map(lambda name: measured(name, n, d), names), strict=True))
    rows = [["contender", "added"], *([name, f"{digits(mb)} MB"] for name, mb in added.items())]
    heading = f"({n}, {d}) float32: {4 * n * (d + 1) / 1e6:.0f} MB of data, {EPOCHS} epochs"
    notes = [
        "The most that was resident during the training, less what was before it. "
        f"In {LONG_EPOCHS} epochs the data are compressed."
    ]
    # What a fit adds must not depend on the method that it chooses.
    figures = {FIGURE: max(added[FIT], added[LONG_FIT])}
    if COMPRESS in added:
        figures[COMPRESS_FIGURE] = added[COMPRESS]
    return Table(SUITE, heading, rows, notes, figures, added)


def measured(contender: str, n: int, d: int) -> float:
    """Megabytes."""
    command = [sys.executable, __file__, contender, str(n), str(d)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def resident(which: str) -> float:
    """``VmRSS`` or ``VmHWM``, the most since it was reset; in megabytes."""
    found = re.search(rf"^{which}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def main(contender: str, n: int, d: int) -> None:
    """One training of a small problem, so that code is loaded; then the one that counts."""
    from linear import Problem

    for problem in (Problem.random(128, d, seed=0), Problem.random(n, d, seed=0)):
        RESET.write_text("5")
        before = resident("VmRSS")
        train(contender, problem)
        most = resident("VmHWM")
    print(max(0.0, most - before))


def train(contender: str, problem: object) -> None:
    from torch import nn

    import gdcore
    import jax_peer
    from linear import Problem
    from loops import Training

    assert isinstance(problem, Problem)
    p = problem
    if contender == JAX:
        start = [parameter.detach().numpy() for parameter in p.model().parameters()]
        (scan,) = jax_peer.scan(jax_peer.linear, start, p.x, p.y, p.lr, EPOCHS)
        scan.run()
        return
    if contender == COMPRESS:
        gdcore.compress(p.x, p.y)
        return
    name, _, how = contender.partition(", ")
    options = {"method": how} if how in METHODS else {}
    epochs = LONG_EPOCHS if contender == LONG_FIT else EPOCHS
    training = Training(p.model, nn.MSELoss(), p.x, p.y, p.lr, options)
    run = training.fit(epochs) if name == FIT else training.eager(epochs, {})
    run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
