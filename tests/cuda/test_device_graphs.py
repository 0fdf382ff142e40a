"""Losses and whole steps captured into a CUDA graph: replayed, they are what they were."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdcore

from ..api.loss_cases import cases, selections
from .test_device_use import data, line

pytestmark = pytest.mark.cuda


def captured(step: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Warmed up on a stream of its own, as torch asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    return graph, results


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "reduction", "weighted"), selections())
def test_losses(
    cuda: torch.device, name: str, reduction: str, weighted: bool, dtype: torch.dtype
) -> None:
    """With their gradients, of other values than they were captured with."""
    torch.manual_seed(2)
    with cuda:
        case = cases(reduction, weighted, dtype)[name]
        leaves = case.leaves()

        def step() -> list[Tensor]:
            loss = case.fused(*leaves)
            return [loss.detach(), *torch.autograd.grad(loss.sum(), leaves)]

        graph, results = captured(step)
        with torch.no_grad():
            for leaf in leaves:
                leaf.mul_(0.5)
        graph.replay()
        for actual, expected in zip(results, step(), strict=True):
            assert torch.equal(actual, expected)


@pytest.mark.parametrize("library", [gdcore.optim, torch.optim], ids=["gdcore", "torch"])
@pytest.mark.parametrize("name", ["RMSprop", "Adam", "AdamW"])
def test_steps_that_count(cuda: torch.device, name: str, library: Any) -> None:
    x, y = (t.to(cuda) for t in data())
    mine, other = (line().to(cuda) for _ in range(2))
    steps = [
        gdcore.train_step(
            model,
            nn.MSELoss(),
            getattr(library, name)(model.parameters(), lr=0.05, capturable=True),
        )
        for model in (mine, other)
    ]
    graph, loss = captured(lambda: steps[0](x, y))
    steps[1](x, y)
    for _ in range(4):
        graph.replay()
        expected = steps[1](x, y)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(mine.weight, other.weight, rtol=1e-10, atol=0)


def test_a_count_elsewhere_is_refused(cuda: torch.device) -> None:
    """As of a state that was saved on CUDA and loaded for a model on the CPU."""
    model = line()
    optimizer = gdcore.optim.Adam(model.parameters())
    x, y = data()
    step = gdcore.train_step(model, nn.MSELoss(), optimizer)
    step(x, y)
    for values in optimizer.state.values():
        values["step"] = values["step"].to(cuda)
    with pytest.raises(ValueError, match="state step as one number of float32 or float64 on the"):
        gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=2, method="stepwise")
