"""Steps that need the whole gradient, emulated: its norm, and weights that share parameters."""

from typing import Any

import pytest
import torch
from torch import nn

from gdcore._native.problem import Problem, StopRule
from gdcore._native.runners import StepwiseRunner

from ..native.problems import linear
from .test_emulated_runner import agree, runners

pytest.importorskip("gdcore._native.cuda_loop", reason="built without the CUDA path")


@pytest.mark.parametrize("name", ["SGD with all options", "RMSprop, centered", "Adam"])
@pytest.mark.parametrize("limit", [0.5, 1e9])
@pytest.mark.parametrize(("rows", "d", "k"), [(30, 1, 1), (30, 3, 2), (2100, 1, 2)])
def test_clipping(on_host: Any, rows: int, d: int, k: int, name: str, limit: float) -> None:
    """One block's numbers, and those of many; in minibatches, too."""
    mine, theirs = runners(linear(rows, d, k), name, max_grad_norm=limit)
    for epochs in (1, 5):
        agree(mine.run(epochs, record_every=2), theirs.run(epochs, record_every=2))
    agree(mine.run(1, batch_size=11), theirs.run(1, batch_size=11))
    unclipped, _ = runners(linear(rows, d, k), name)
    record = unclipped.run(6, record_every=1).records
    clipped, _ = runners(linear(rows, d, k), name, max_grad_norm=limit)
    same = torch.equal(clipped.run(6, record_every=1).records, record)
    assert same == (limit == 1e9)


@pytest.mark.parametrize(("rows", "d", "k"), [(30, 1, 1), (30, 3, 2), (2100, 1, 2)])
def test_the_norm_is_of_what_is_trained(on_host: Any, rows: int, d: int, k: int) -> None:
    """A bias that is frozen has none."""
    from gdcore._native.cuda_runner import CudaRunner

    found = []
    for kind in (CudaRunner, StepwiseRunner):
        problem = linear(rows, d, k)
        weight, _ = problem.parameters
        found.append(kind(problem, torch.optim.SGD([weight], lr=0.1), max_grad_norm=0.1).run(3))
    agree(*found)


def indexed(rows: int, places: list[list[int]], **options: Any) -> Problem:
    """Of two parameters, five numbers, that are weights in these places."""
    index = torch.tensor(places)
    first = linear(rows, index.shape[1], index.shape[0], **options)
    parameters = (nn.Parameter(torch.linspace(-1, 1, 3).double()), nn.Parameter(torch.ones(2, 1)))
    parameters = tuple(nn.Parameter(p.detach().double()) for p in parameters)
    return first._replace(kernel="indexed", names=("a", "b"), parameters=parameters, index=index)


PLACES = {
    "a number": [[1]],
    "in order": [[0, 1, 2, 3, 4]],
    "outputs that share": [[0, 4, 1], [3, 4, 1]],
    "twice and never": [[2, 2, -1, 0], [-1, 3, 3, 3], [-1, -1, -1, -1]],
}


@pytest.mark.parametrize("name", ["SGD with all options", "RMSprop, centered", "Adam"])
@pytest.mark.parametrize("rows", [30, 100])
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_weights_from_places(
    on_host: Any, places: list[list[int]], clip: float | None, rows: int, name: str
) -> None:
    """As on the CPU, over all rows and over batches, weighted or not."""
    for weighted in (False, True):
        mine, theirs = runners(indexed(rows, places, weighted=weighted), name, max_grad_norm=clip)
        for epochs in (1, 5):
            agree(mine.run(epochs, record_every=2), theirs.run(epochs, record_every=2))
        agree(mine.run(1, batch_size=11), theirs.run(1, batch_size=11))
        rule = StopRule(loss_below=0.0, gradient_norm_below=1e-9)
        agree(mine.run(7, stop=rule), theirs.run(7, stop=rule))


@pytest.mark.parametrize("shape", [(30, 1, 1), (30, 3, 2), (2100, 1, 2), None])
def test_the_order_of_threads_does_not_show(
    on_host: Any, emulated: Any, shape: tuple[int, int, int] | None
) -> None:
    """Where the gradient's norm is looked at, or weights are taken from places."""
    found = []
    for backwards in (False, True):
        emulated.backwards = backwards
        problem = indexed(100, PLACES["twice and never"]) if shape is None else linear(*shape)
        mine, _ = runners(problem, "Adam", max_grad_norm=0.5)
        ran = mine.run(5, record_every=1, stop=StopRule(gradient_norm_below=1e-9))
        found.append((ran.losses, ran.records))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize(("rows", "d", "k"), [(30, 1, 1), (30, 3, 2), (2100, 1, 2)])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_gradient_norm_below(on_host: Any, rows: int, d: int, k: int, clip: float | None) -> None:
    """Of the gradient before it is clipped."""
    mine, theirs = runners(linear(rows, d, k), "SGD", max_grad_norm=clip)
    rule = StopRule(gradient_norm_below=1.0)
    ours = mine.run(500, stop=rule)
    assert ours.outcome == "stopped"
    assert ours.updates > 3
    agree(ours, theirs.run(500, stop=rule))
    with pytest.raises(ValueError, match="gradient_norm_below with the full batch"):
        mine.run(1, batch_size=8, stop=rule)
