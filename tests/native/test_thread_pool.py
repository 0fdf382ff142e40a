"""The thread pool: who works, how many, and that callers, forks and threads get right answers."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

import gdcore
from gdcore import _ops

from ..kernels import native_step
from .processes import run_python

Results = tuple[Tensor, ...]


def random(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def loss() -> Results:
    x, weight, bias, target = random((40_001, 5), (1, 5), (1,), (40_001, 1))
    return _ops.linear_mse(x, weight, bias, target, "mean", True)


def polynomial_loss() -> Results:
    x, coefficients, target = random((50_001,), (4,), (50_001,))
    return _ops.polynomial_mse(x, coefficients, target, "mean")


def update() -> Results:
    p, grad, buffer = random((200_001,), (200_001,), (200_001,))
    native_step.sgd([p], [grad], [buffer], [False], lr=0.1, momentum=0.9)
    return p, buffer


def fit() -> Results:
    return _fit(40_001, 30)


def small_fit() -> Results:
    return _fit(30, 3_000)


def _fit(rows: int, epochs: int) -> Results:
    x, weight, noise = random((rows, 3), (1, 3), (rows, 1))
    model = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    model.load_state_dict({"weight": torch.zeros_like(weight)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    data = (x, x @ weight.t() + noise)
    history = gdcore.fit(model, torch.nn.MSELoss(), optimizer, data, epochs=epochs)
    return history.loss, model.weight.detach()


WORK = (loss, polynomial_loss, update, fit, small_fit)


@pytest.mark.parametrize("callers", [2, 5])
def test_callers_at_once(callers: int, set_threads: Callable[[int], None]) -> None:
    """Python threads that compute at the same time get what each alone gets, to the bit."""
    set_threads(3)
    alone = [work() for work in WORK]

    def call(first: int) -> bool:
        for turn in range(20):
            which = (first + turn) % len(WORK)
            if not all(map(torch.equal, WORK[which](), alone[which])):
                return False
        return True

    with ThreadPoolExecutor(callers) as pool:
        assert all(pool.map(call, range(callers)))


# Zero strides: as much work as one likes, in no memory and without torch's own threads.
BIG = """
import os, torch, gdcore
from gdcore import _ops

def big(rows=400_000):
    x, target = torch.tensor([[1.5, -0.5]]).expand(rows, 2), torch.tensor([[0.3]]).expand(rows, 1)
    return _ops.linear_mse(x, torch.tensor([[0.7, 0.2]]), None, target, "sum", False)[:2]

def same(mine, other):
    return all(map(torch.equal, mine, other))

def tasks():
    return len(os.listdir("/proc/self/task"))
"""


def test_as_many_threads_as_torch_is_told() -> None:
    """The caller is one of them; those that there are serve the next job."""
    code = """
for threads, started in ((1, 0), (2, 1), (2, 0), (3, 1), (8, 5), (3, 0)):
    torch.set_num_threads(threads)  # which starts threads of torch's own
    before = tasks()
    big()
    assert tasks() - before == started, (threads, tasks() - before)
"""
    run_python(BIG + code)


def test_fewer_threads_are_honoured_later() -> None:
    """A pool that has eight threads serves two or one where no more are asked for."""
    code = """
def cpu_seconds():
    ticks = [open(f"/proc/self/task/{task}/stat").read().rsplit(") ")[1].split()
             for task in os.listdir("/proc/self/task") if int(task) != os.getpid()]
    return sum(int(fields[11]) + int(fields[12]) for fields in ticks) / os.sysconf("SC_CLK_TCK")

torch.set_num_threads(8)
eight = big(5_000_000)
torch.set_num_threads(1)
before = cpu_seconds()
for _ in range(10):
    one = big(5_000_000)
assert cpu_seconds() == before, "workers have worked"
assert same(one, eight)
"""
    run_python(BIG + code)


def test_small_work_stays_on_the_calling_thread() -> None:
    code = """
from gdcore import functional as F, nn, optim

torch.set_num_threads(8)
before = tasks()
x, y = torch.randn(100, 3), torch.randn(100, 1)
model = nn.LinearRegression(3)
F.linear_mse_loss(x, model.weight, model.bias, y).backward()
F.mse_loss(model(x), y).backward()
F.legendre_p3(y)
optim.SGD(model.parameters(), lr=0.01).step()
optimizer = optim.SGD(model.parameters(), lr=0.01)
gdcore.train_step(model, nn.MSELoss(), optimizer)(x, y)
gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=10_000)
assert tasks() == before
big()
assert tasks() == before + 7
"""
    run_python(BIG + code)


AFTER_FORK = """
def fork(work):
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return child

def wait(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def compute():
    assert same(big(), first)
    assert tasks() == 3, "the child has workers of its own"

torch.set_num_threads(3)
first = big()
"""


def test_after_fork() -> None:
    """Parent, child and grandchild all go on with threads; the parent's pool is its own."""
    code = """
def child():
    compute()
    wait(fork(compute))

wait(fork(child))
assert same(big(), first)
"""
    run_python(BIG + AFTER_FORK + code, timeout=60)


def test_fork_while_others_compute() -> None:
    """A child that is born in the middle of another thread's job does not wait for that job."""
    code = """
import threading

done = threading.Event()
wrong = []

def others():
    while not done.is_set():
        if not same(big(), first):
            wrong.append(True)

thread = threading.Thread(target=others)
thread.start()
for _ in range(20):
    wait(fork(compute))
done.set()
thread.join()
assert not wrong
"""
    run_python(BIG + AFTER_FORK + code, timeout=60)
