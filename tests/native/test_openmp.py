"""No OpenMP of our own; as many threads as torch says, which ``OMP_NUM_THREADS`` tells it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gdcore import _core

# Threads of the process before and after work that is shared among all of torch's.
THREADS = """
import os, torch, gdcore
from torch import nn
torch.get_num_threads()
count = lambda: len(os.listdir("/proc/self/task"))
x = torch.randn(200_000, 8)
y, model = x[:, :1].clone(), nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
before = count()
gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=3, method="stepwise")
print(torch.get_num_threads(), count() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc")
@pytest.mark.parametrize("threads", [1, 2])
def test_the_environment_s_threads(threads: int) -> None:
    """One thread starts none. (Others begin with the first work that is shared.)"""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", THREADS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    told, started = map(int, done.stdout.split())
    assert told == threads
    assert (started > 0) == (threads > 1 and len(os.sched_getaffinity(0)) > 1)


def test_no_openmp_is_linked() -> None:
    binary = Path(_core.__file__).read_bytes()
    assert b"libgomp" not in binary
    assert b"libomp" not in binary
    assert b"GOMP_parallel" not in binary
