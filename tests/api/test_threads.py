"""Two Python threads in gdcore at once: the native code runs without Python's lock."""

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gdcore

ROWS, STEPS, THREADS = 60_000, 6, 3


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 20, generator=generator)
    return x, x.sum(1, keepdim=True)


def at_once(work: Callable[[], object]) -> None:
    """Every thread begins each of its calls together with the others."""
    barrier = threading.Barrier(THREADS)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            for _ in range(STEPS):
                barrier.wait(60)
                work()
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def trained(way: str, momentum: float, together: bool) -> list[Tensor]:
    torch.manual_seed(1)
    model, (x, y) = nn.Linear(20, 1), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=momentum)
    step = gdcore.train_step(model, nn.MSELoss(), optimizer)

    def work() -> object:
        if way == "train_step":
            return step(x, y)
        return gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=1)

    if together:
        at_once(work)
    else:
        for _ in range(STEPS * THREADS):
            work()
    buffers = [state["momentum_buffer"] for state in optimizer.state.values() if state]
    return [*model.parameters(), *buffers]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("way", ["train_step", "fit"])
def test_no_update_is_lost(way: str, momentum: float) -> None:
    together, alone = trained(way, momentum, True), trained(way, momentum, False)
    assert len(together) == (4 if momentum else 2)
    assert all(map(torch.equal, together, alone))


def test_explain_takes_its_turn() -> None:
    """It tries other parameters, which a step of another thread would update."""
    x, y = data()
    weight = torch.zeros(20, 1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.01)

    def explain() -> None:
        gdcore.explain(lambda x: x @ weight, nn.MSELoss(), optimizer, (x[:10], y[:10]), epochs=1)

    thread = threading.Thread(target=explain)
    waited = []

    def callback(*_: object) -> None:
        thread.start()
        thread.join(0.5)
        waited.append(thread.is_alive())

    explain()  # so that nothing is left to import
    fit = gdcore.fit
    fit(lambda x: x @ weight, nn.MSELoss(), optimizer, (x, y), epochs=1, callbacks=callback)
    thread.join(60)
    assert waited == [True]
    assert not thread.is_alive()


def test_losses_at_once() -> None:
    x, y = data()
    results: list[tuple[Tensor, ...]] = []

    def work() -> None:
        weight = torch.ones(1, 20, requires_grad=True)
        loss = gdcore.functional.linear_mse_loss(x, weight, None, y + 1)
        loss.backward()
        assert weight.grad is not None
        results.append((loss.detach(), weight.grad))

    at_once(work)
    assert len(results) == STEPS * THREADS
    assert all(all(map(torch.equal, result, results[0])) for result in results)
