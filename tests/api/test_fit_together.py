"""Fits in threads, in a loader's worker, after a fork; and Ctrl-C. In processes of their own."""

from collections.abc import Sequence
from textwrap import indent

import pytest

from ..native.processes import run_python

START = """
import os, signal, sys, threading, time
import torch, gdcore
from torch import nn

drawing = threading.Lock()  # of torch's one default generator

def problem(rows=2000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 8, generator=generator, dtype=torch.float64)
    with drawing:
        torch.manual_seed(seed)
        model = nn.Linear(8, 1, dtype=torch.float64)
    return model, x, x.sum(1, keepdim=True)

def fit(seed=0, epochs=40, rows=2000, **options):
    model, x, y = problem(rows, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    options = {"epochs": epochs, "method": WAY, **options}
    history = gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), **options)
    return [history.loss, *(p.detach() for p in model.parameters())]

def same(one, other):
    return all(map(torch.equal, one, other))
"""

WAYS = ("stepwise", "compressed", "eager")


def run(code: str, ways: Sequence[str] = WAYS, options: str = "None") -> None:
    """One process for all the ways: starting it takes longer than what is tested."""
    loop = f"for WAY in {tuple(ways)!r}:\n    print(WAY, file=sys.stderr)\n{indent(code, '    ')}"
    assert run_python(f"{START}\nOPTIONS = {options}\n{loop}\nprint('done')").endswith("done")


def test_two_threads() -> None:
    run(
        """
alone = [fit(seed) for seed in range(4)]
together = [None] * 4

def work(seed):
    together[seed] = fit(seed, callbacks=lambda *_: None)

threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert all(map(same, alone, together))
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
""",
    )


def test_two_threads_with_one_optimizer_take_turns() -> None:
    run(
        """
model, x, y = problem()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
losses = []

def work():
    history = gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=20, method=WAY)
    losses.append(history.loss)

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
losses.sort(key=lambda loss: -loss[0])
assert torch.equal(torch.cat(losses), fit(epochs=40)[0])
""",
    )


def test_in_a_worker_of_a_loader() -> None:
    run(
        """
class Fits(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, seed):
        return fit(seed, epochs=10)[0]

fit(rows=50_000, epochs=2)  # in parallel, before the workers are forked
loader = torch.utils.data.DataLoader(Fits(), num_workers=1, batch_size=None)
for seed, loss in enumerate(loader):
    assert torch.equal(loss, fit(seed, epochs=10)[0])
""",
    )


def test_after_a_fork() -> None:
    """With another thread in the middle of a fit, too: its lock is nobody's in the child.

    (torch's own parallel operations may hang in a child: the data are made before.)
    """
    run(
        ways=["stepwise"],
        code="""
model, x, y = problem(rows=20_000)
start = [p.detach().clone() for p in model.parameters()]

def repeat():
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), start):
            parameter.copy_(value)
    return gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=5, method=WAY).loss.tolist()

expected = repeat()
shared = nn.Linear(8, 1, dtype=torch.float64)
optimizer = torch.optim.SGD(shared.parameters(), lr=0.0)
started, forked = threading.Event(), threading.Event()

def wait(*_):
    started.set()
    return forked.is_set()

def work():
    options = {"epochs": 10**6, "method": WAY, "callbacks": wait}
    gdcore.fit(shared, nn.MSELoss(), optimizer, (x, y), **options)

thread = threading.Thread(target=work)
thread.start()
started.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    good = repeat() == expected
    history = gdcore.fit(shared, nn.MSELoss(), optimizer, (x[:9], y[:9]), epochs=1)
    os._exit(0 if good and len(history.loss) == 1 else 1)
forked.set()
assert os.waitpid(child, 0)[1] == 0
thread.join()
assert repeat() == expected
""",
    )


def test_recognition_after_a_fork() -> None:
    """It runs torch's operations, whose threads are not there in the child."""
    run(
        ways=["auto"],
        code="""
_, x, y = problem(rows=20_000)

def trained():
    weight = torch.zeros(8, 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.01)
    gdcore.explain(lambda x: x @ weight, nn.MSELoss(), optimizer, (x, y), epochs=5)
    data, options = (x, y), {"epochs": 5, "method": "compressed"}
    return gdcore.fit(lambda x: x @ weight, nn.MSELoss(), optimizer, data, **options).loss.tolist()

assert (x @ x.T[:, :500]).sum().isfinite()  # in parallel
expected = trained()
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if trained() == expected else 1)
assert os.waitpid(child, 0)[1] == 0
""",
    )


INTERRUPTED = """
from torch.optim import SGD, lr_scheduler

def begin():
    model, x, y = problem(rows=64)
    optimizer = SGD(model.parameters(), lr=1e-4, momentum=0.5)
    return model, optimizer, lr_scheduler.ExponentialLR(optimizer, 0.9999), (x, y)

def fit_on(parts, epochs):
    model, optimizer, scheduler, data = parts
    options = {"epochs": epochs, "method": WAY, **OPTIONS(scheduler, data)}
    return gdcore.fit(model, nn.MSELoss(), optimizer, data, **options)

def state(parts):
    model, optimizer, scheduler, _ = parts
    buffers = [s["momentum_buffer"] for s in optimizer.state.values()]
    return [*(p.detach().clone() for p in model.parameters()), *buffers, torch.get_rng_state()]

def interrupt(seconds):
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGINT)

fit_on(begin(), 2)
caught = 0
for delay in (0.02, 0.033, 0.05):
    parts = begin()
    torch.manual_seed(1)
    threading.Thread(target=interrupt, args=(delay,)).start()
    begun = time.monotonic()
    try:
        fit_on(parts, 10_000_000)
    except KeyboardInterrupt as error:
        took = time.monotonic() - begun - delay
        history = getattr(error, "history", None)
    assert took < 5.0, took
    if history is None:
        continue  # it came before the loop
    caught += 1
    rest = fit_on(parts, 3).loss
    before = state(parts)
    other = begin()
    torch.manual_seed(1)
    epochs = len(history.loss)
    again = fit_on(other, epochs)
    assert torch.equal(history.loss, again.loss), (delay, epochs)
    assert torch.equal(history.lr, again.lr), (delay, epochs)
    assert torch.equal(rest, fit_on(other, 3).loss), (delay, epochs)
    for ours, theirs in zip(before, state(other), strict=True):
        # The generator went on from where the last whole epoch had left it.
        assert torch.equal(ours, theirs), (delay, epochs)
assert caught >= 2
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""

OPTIONS = {
    "callbacks": "lambda s, d: {'callbacks': lambda *_: None}",
    "a schedule": "lambda s, d: {'scheduler': s, 'validation': d, 'validate_every': 7}",
    "batches": "lambda s, d: {'batch_size': 4, 'shuffle': True}",
    "a schedule of steps": (
        "lambda s, d: {'batch_size': 4, 'shuffle': True, 'scheduler': s,"
        " 'scheduler_interval': 'step'}"
    ),
}


@pytest.mark.parametrize("options", OPTIONS)
def test_ctrl_c_leaves_whole_epochs(options: str) -> None:
    """At whatever moment it comes, history, parameters, state and generators agree, to the bit."""
    # Batches are not compressed: the full batch is.
    ways = [way for way in WAYS if way != "compressed" or "batch" not in OPTIONS[options]]
    run(INTERRUPTED, ways, OPTIONS[options])


def test_a_handler_that_does_not_raise_lets_the_fit_go_on() -> None:
    run(
        ways=["eager"],
        code="""
came = []
signal.signal(signal.SIGINT, lambda *_: came.append(1))
plain = fit(epochs=200)
timer = threading.Timer(0.02, lambda: os.kill(os.getpid(), signal.SIGINT))
timer.start()
again = fit(epochs=200)
timer.join()
assert came and same(plain, again)
""",
    )
