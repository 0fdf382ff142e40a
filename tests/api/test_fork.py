"""Training in a child of fork, whose parent had threads. In processes of their own."""

import pytest

from ..native.processes import run_python

START = """
import os, signal, threading
import torch, gdcore
from torch import nn

torch.manual_seed(0)
x = torch.randn(ROWS, 8)
y = x.sum(1, keepdim=True)
model = nn.Linear(8, 1) if WAY == "native" else nn.Sequential(nn.Linear(8, 1), nn.Tanh())
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
step = gdcore.train_step(model, nn.MSELoss(), optimizer)
first = step(x, y)  # in parallel, where there are many rows

def in_a_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends a child that hangs
        os._exit(0 if work() else 1)
    assert os.waitpid(child, 0)[1] == 0
"""

WAY = pytest.mark.parametrize("way", ["native", "eager"])


def run(way: str, rows: int, code: str) -> None:
    run_python(f"WAY, ROWS = {way!r}, {rows}\n{START}\n{code}")


@WAY
def test_a_turn_that_another_thread_had(way: str) -> None:
    """The other thread is not in the child, and would never give it back."""
    run(
        way,
        9,
        """
started, forked = threading.Event(), threading.Event()

def wait(*_):
    started.set()
    return forked.wait()

options = {"epochs": 1, "callbacks": wait}
thread = threading.Thread(
    target=gdcore.fit, args=(model, nn.MSELoss(), optimizer, (x, y)), kwargs=options
)
thread.start()
started.wait()
try:
    in_a_child(lambda: step(x, y).isfinite() and step(x, y).isfinite())
finally:
    forked.set()
    thread.join()
assert step(x, y) < first
""",
    )


@WAY
def test_a_turn_that_the_forking_thread_has(way: str) -> None:
    """It goes on in the child, has it there too, and gives it back."""
    run(
        way,
        9,
        """
def train():
    children = []

    def fork(*_):
        children.append(os.fork())
        if children[-1] == 0:
            signal.alarm(60)
        step(x, y)

    gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=1, callbacks=fork)
    thread = threading.Thread(target=step, args=(x, y))
    thread.start()  # its turn, too, comes
    thread.join()
    return children[-1]

try:
    child = train()
except BaseException:
    os._exit(1)
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""",
    )


@WAY
def test_steps_over_many_rows(way: str) -> None:
    """torch's threads, which its operations count on, stayed in the parent."""
    run(way, 200_000, "in_a_child(lambda: step(x, y) < first)")
