"""Minibatches of models whose features are no row for each row of x: as PyTorch trains them."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

import gdcore

from ..devices import NOT_EMULATED
from .drawing import drawn_on_cpu

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

N = 10


class OneByOne(Dataset[Any]):
    """Read row by row, as nothing says that it is made of tensors."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)


class Shared(nn.Module):
    """Two inputs, three places each, two outputs at every place."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x.cos())
        return out


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "a Linear over places": (lambda: nn.Linear(2, 1), (3, 2), (3, 1)),
    "a Linear over two dimensions": (lambda: nn.Linear(2, 2), (2, 3, 2), (2, 3, 2)),
    "a class": (Shared, (3, 2), (3, 2)),
    "a convolution": (
        lambda: nn.Sequential(nn.Conv1d(1, 1, 2, bias=False), nn.Flatten()),
        (1, 5),
        (4,),
    ),
    "a Linear over rows": (lambda: nn.Linear(2, 2), (2,), (2,)),
}
DATA: dict[str, Callable[..., dict[str, Any]]] = {
    "in order": lambda *t: {"data": t, "batch_size": 4},
    "one by one": lambda *t: {"data": t, "batch_size": 1, "shuffle": True},
    "shuffled": lambda *t: {"data": t, "batch_size": 4, "shuffle": True},
    "all at once": lambda *t: {"data": t, "batch_size": N},
    "more than all": lambda *t: {"data": t, "batch_size": N + 3},
    "all at once, shuffled": lambda *t: {"data": t, "batch_size": N, "shuffle": True},
    "without the rest": lambda *t: {
        "data": DataLoader(TensorDataset(*t), batch_size=4, shuffle=True, drop_last=True)
    },
    "drawn with replacement": lambda *t: {
        "data": DataLoader(
            TensorDataset(*t), batch_size=N, sampler=RandomSampler(OneByOne(*t), replacement=True)
        )
    },
    "read": lambda *t: {"data": DataLoader(OneByOne(*t), batch_size=4, shuffle=True)},
    "read at once": lambda *t: {"data": DataLoader(OneByOne(*t), batch_size=N)},
}


def trained(model: str, way: str, method: str, weighted: bool, step: bool) -> Any:
    make, inputs, outputs = MODELS[model]
    torch.manual_seed(0)
    net = make().double()
    tensors = [torch.randn(N, *shape, dtype=torch.float64) for shape in (inputs, outputs)]
    if weighted:
        tensors.append(torch.rand(N, dtype=torch.float64))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.5)
    options: dict[str, Any] = {}
    if step:
        options = {"scheduler": ExponentialLR(optimizer, 0.9), "scheduler_interval": "step"}
    torch.manual_seed(1)
    with drawn_on_cpu():
        history = gdcore.fit(
            net,
            nn.MSELoss(),
            optimizer,
            epochs=3,
            method=method,
            record_steps=True,
            **options,
            **DATA[way](*tensors),
        )
        after = torch.rand(1)
    steps = history.step_loss
    return history.plan, (history.loss, steps, *(p.detach() for p in net.parameters()), after)


@pytest.mark.parametrize("step", [False, True], ids=["", "stepped"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("way", DATA)
@pytest.mark.parametrize("model", MODELS)
def test_as_pytorch_trains_it(model: str, way: str, weighted: bool, step: bool) -> None:
    plan, ours = trained(model, way, "auto", weighted, step)
    _, theirs = trained(model, way, "eager", weighted, step)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert "stepwise" in str(plan), str(plan)


ACROSS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "centred": lambda w, x: (x - x.mean(0)) @ w,
    "turned round": lambda w, x: x.flip(0) @ w,
    "one for all": lambda w, x: (x.mean(0) @ w).expand(len(x), 1),
}


@pytest.mark.parametrize("way", DATA)
@pytest.mark.parametrize("name", ACROSS)
def test_what_depends_on_other_rows(name: str, way: str) -> None:
    """Natively where one batch of all rows in memory comes as they lie; else eagerly."""
    ends = []
    for method in ("auto", "eager"):
        torch.manual_seed(0)
        x, W = torch.randn(N, 2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
        W.requires_grad_()
        optimizer = torch.optim.SGD([W], lr=0.1)
        model = functools.partial(ACROSS[name], W)
        data = DATA[way](x, x.sum(1, keepdim=True))
        with drawn_on_cpu():
            history = gdcore.fit(model, nn.MSELoss(), optimizer, epochs=3, method=method, **data)
        ends.append((history.loss, W.detach()))
        if method == "auto":
            natively = way in ("all at once", "more than all")
            assert ("stepwise" in str(history.plan)) == natively
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-10, atol=1e-12)
