"""The threads that compress: how many, Ctrl-C, and forks."""

import subprocess
import sys
import threading
from collections.abc import Callable

import torch

import gdcore
from gdcore._native.runners import CompressedRunner

from .problems import linear


def test_threads_do_not_change_the_bits() -> None:
    """Several lanes, and LAPACK with as many threads as there are."""
    problem = linear(60_000, 30, 1)
    before, rows = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 8):
            torch.set_num_threads(threads)
            opt = torch.optim.SGD(problem.parameters, lr=0.1)
            rows.append(CompressedRunner(problem, opt).rows)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(r.x, rows[0].x) and torch.equal(r.y, rows[0].y) for r in rows[1:])


INTERRUPTED = """
import signal, time, torch
from gdcore import compress

class Stopped(Exception):
    pass

def handle(number, frame):
    raise Stopped

signal.signal(signal.SIGALRM, handle)
x, y = torch.randn(1, 40).expand(30_000_000, 40), torch.randn(1, 1).expand(30_000_000, 1)
threads = torch.get_num_threads()
signal.setitimer(signal.ITIMER_REAL, 0.5)
sent = time.monotonic() + 0.5
try:
    compress(x, y)
except Stopped:
    assert time.monotonic() - sent < 5.0, time.monotonic() - sent
else:
    raise AssertionError("not stopped")
assert torch.get_num_threads() == threads
"""


def test_ctrl_c_while_it_compresses() -> None:
    """After the blocks in progress: some tens of milliseconds on a machine left alone."""
    subprocess.run([sys.executable, "-c", INTERRUPTED], check=True, timeout=120)


FORKED = """
import os, signal, torch
from torch import nn
from gdcore._native.problem import Problem
from gdcore._native.runners import CompressedRunner, StepwiseRunner

x, y = torch.randn(60_000, 20), torch.randn(60_000, 1)

def fit():
    torch.manual_seed(0)
    model = nn.Linear(20, 1)
    problem = Problem("linear", ("weight", "bias"), tuple(model.parameters()), x, y, None, True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    runners = CompressedRunner(problem, optimizer), StepwiseRunner(problem, optimizer)
    return [runner.run(3).losses[-1].item() for runner in runners]

(x.T @ x).sum()
expected = fit()
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    os._exit(0 if fit() == expected else 1)
assert os.waitpid(pid, 0)[1] == 0
"""


def test_after_a_fork() -> None:
    """The parent has used threads of torch's, of LAPACK's and of gdcore's."""
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=120)


def test_threads_are_kept(set_threads: Callable[[int], None]) -> None:
    """One that ended would hold a lock of MKL's a while: a child that is forked then compresses
    nothing any more.
    """
    x, y = torch.randn(60_000, 20), torch.randn(60_000, 1)

    def threads() -> set[threading.Thread]:
        gdcore.compress(x, y)
        return {each for each in threading.enumerate() if each.name.startswith("qr")}

    set_threads(2)
    first = threads()
    assert first
    set_threads(1)
    assert first <= threads()
