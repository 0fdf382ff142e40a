"""Ctrl-C and other signals during a fit.

A fit answers Ctrl-C within 100 ms. The tests allow a second, for what else a busy machine does.
"""

import json
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

ALLOWED_SECONDS = 1.0

# A model of each kind: very many short epochs, or few long ones (over rows of zero stride, which
# take time and no memory).
MODELS = {
    "line": """
def problem():
    model = nn.LinearRegression(1)
    return model, torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[2.0], [4.0], [6.0]])
""",
    "polynomial": """
def problem():
    x = torch.linspace(-1, 1, 200, dtype=torch.float64)
    return nn.PolynomialRegression(3).double(), x, torch.sin(x)
""",
    "long epochs": """
def problem():
    x = torch.linspace(-1, 1, 64).repeat(1_000_000, 1)
    return nn.LinearRegression(64), x, torch.ones(1, 1).expand(1_000_000, 1)
""",
    "many parameters": """
def problem():
    x = torch.linspace(-1, 1, 1024).expand(100_000, 1024)
    return nn.LinearRegression(1024, 256), x, torch.ones(1, 1).expand(100_000, 256)
""",
    "a large square model": """
def problem():
    x = torch.linspace(-1, 1, 700).expand(100_000, 700)
    return nn.LinearRegression(700, 700), x, torch.ones(1, 1).expand(100_000, 700)
""",
    "very long epochs": """
def problem():
    x = torch.linspace(-1, 1, 64).expand(1_000_000_000, 64)
    return nn.LinearRegression(64), x, torch.ones(1, 1).expand(1_000_000_000, 1)
""",
}

FIT = """
import json, signal, sys, time, torch, gdcore
from gdcore import nn

METHOD = "stepwise"

def fit(epochs):
    torch.manual_seed(0)
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.5)
    print("started", flush=True)
    try:
        history = gdcore.fit(
            model, nn.MSELoss(), optimizer, (x, y), epochs=epochs, record_every=1000, method=METHOD
        )
    except Stopped as stopped:
        answered.append(time.monotonic())
        history = stopped.history
    buffers = [state.get("momentum_buffer") for state in optimizer.state.values()]
    return history, [*model.parameters(), *buffers]

answered = []
"""

STOP_AND_REPEAT = """
parameters = sum(p.numel() for p in problem()[0].parameters())
history, state = fit(epochs=200_000_000 if parameters < 100 else 1_000)
epochs = len(history.loss)
print(json.dumps({"answered": answered[0], "epochs": epochs}), flush=True)

again, other_state = fit(epochs=epochs)
assert len(answered) == 1
assert torch.equal(history.loss, again.loss), "losses"
assert list(history.recorded_epochs) == list(range(0, epochs, 1000)), "records"
assert history.parameters.keys() == again.parameters.keys()
for name, values in history.parameters.items():
    assert torch.equal(values, again.parameters[name]), name
assert len(state) == len(other_state)
assert all(map(torch.equal, state, other_state)), "parameters or momentum"
"""


def stop(code: str, after: float, with_signal: int = signal.SIGINT) -> tuple[dict[str, Any], float]:
    """Signal a fit ``after`` seconds: what it reports, and the seconds that the answer took."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "started\n"
        time.sleep(after)
        sent = time.monotonic()
        process.send_signal(with_signal)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, errors
    report = json.loads(output.splitlines()[0])
    return report, report["answered"] - sent


COMPRESSED = 'METHOD = "compressed"\n'


@pytest.mark.parametrize("model", MODELS)
def test_ctrl_c(model: str) -> None:
    """KeyboardInterrupt comes soon, and all is as after a fit of exactly the epochs that ended."""
    code = "Stopped = KeyboardInterrupt\n" + FIT + MODELS[model] + STOP_AND_REPEAT
    report, seconds = stop(code, after=1.0)
    assert seconds < ALLOWED_SECONDS
    one_takes_longer = model in ("many parameters", "a large square model", "very long epochs")
    assert (report["epochs"] == 0) == one_takes_longer


@pytest.mark.parametrize("rows", [3, 5_000_000])
def test_ctrl_c_of_a_compressed_fit(rows: int) -> None:
    """Among its epochs, or while the rows are compressed."""
    problem = MODELS["very long epochs"].replace("1_000_000_000", str(rows))
    code = "Stopped = KeyboardInterrupt\n" + FIT + COMPRESSED + problem + STOP_AND_REPEAT
    code = code.replace("parameters < 100", f"{rows} < 100")
    report, seconds = stop(code, after=1.0)
    assert seconds < ALLOWED_SECONDS
    assert (report["epochs"] == 0) == (rows > 100)


def test_a_handler_that_raises() -> None:
    """Not only Ctrl-C: whatever a handler raises ends the fit, with the history on it."""
    handler = """
class Stopped(Exception):
    pass

def handle(number, frame):
    raise Stopped

signal.signal(signal.SIGUSR1, handle)
"""
    code = FIT + handler + MODELS["line"] + STOP_AND_REPEAT
    report, seconds = stop(code, after=1.0, with_signal=signal.SIGUSR1)
    assert seconds < ALLOWED_SECONDS
    assert report["epochs"] > 0


def test_a_handler_that_returns() -> None:
    """The fit goes on, and the handler has run meanwhile."""
    code = """
class Stopped(Exception):
    pass

ticks = []
quiet, state = fit(epochs=12_000)
signal.signal(signal.SIGALRM, lambda number, frame: ticks.append(time.monotonic()))
signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
history, other_state = fit(epochs=12_000)
signal.setitimer(signal.ITIMER_REAL, 0)
ended = time.monotonic()
assert sum(ended - history.seconds < tick < ended for tick in ticks) >= 2, (history, ticks)
assert torch.equal(history.loss, quiet.loss)
assert all(map(torch.equal, state, other_state))
"""
    rows = """
def problem():
    x = torch.linspace(-1, 1, 8).expand(20_000, 8)
    return nn.LinearRegression(8), x, torch.ones(1, 1).expand(20_000, 1)
"""
    subprocess.run([sys.executable, "-c", FIT + rows + code], check=True, timeout=120)
