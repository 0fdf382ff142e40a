"""Tensors on the CPU train as ever while torch's default device is another; meta stands for it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdcore
from gdcore._optim import torch_step

from .optimizers import NAMES

X, Y = torch.randn(40, 3), torch.randn(40, 1)
_W = torch.randn(1, 3)


def by_hand(name: str) -> Tensor:
    """`gdcore.optim`'s steps."""
    weight = nn.Parameter(_W.clone())
    optimizer = getattr(gdcore.optim, name)([weight], lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        gdcore.functional.linear_mse_loss(X, weight, None, Y).backward()
        optimizer.step()
    return weight.detach()


class Own(nn.Linear):
    """Not known by its name: what it is, its forward says."""


class Doubled(nn.Linear):
    """Whose features are not x itself, but columns of it times a number."""

    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * nn.functional.linear(x, self.weight) + self.bias


def model_of(name: str, kind: type[nn.Linear] = nn.Linear) -> tuple[nn.Linear, Any]:
    model = kind(3, 1, device="cpu")
    with torch.no_grad():
        model.weight.copy_(_W)
        model.bias.zero_()
    return model, getattr(torch.optim, name)(model.parameters(), lr=0.01)


def by_steps(kind: type[nn.Linear]) -> Callable[[str], Tensor]:
    def run(name: str) -> Tensor:
        model, optimizer = model_of(name, kind)
        step = gdcore.train_step(model, nn.MSELoss(), optimizer, strict=True)
        return torch.stack([step(X, Y) for _ in range(3)])

    return run


def by_fit(method: str, **options: Any) -> Callable[[str], Tensor]:
    def run(name: str) -> Tensor:
        model, optimizer = model_of(name)
        torch.manual_seed(1)
        how = {"epochs": 5, "method": method, **options}
        return gdcore.fit(model, nn.MSELoss(), optimizer, (X, Y), **how).loss

    return run


def by_sweep(**options: Any) -> Callable[[str], Tensor]:
    def run(name: str) -> Tensor:
        model, optimizer = model_of(name)
        torch.manual_seed(1)
        found = gdcore.sweep(
            model, nn.MSELoss(), optimizer, (X, Y), epochs=5, lr=[0.01, 0.02], **options
        )
        return torch.stack([run.loss for run in found])

    return run


def by_curvature(name: str) -> Tensor:
    """Of a line, what it foresees of SGD; of a network, that at its parameters."""
    model, optimizer = model_of(name)
    if name == "SGD":
        curvature = gdcore.curvature(model, nn.MSELoss(), (X, Y))
        assert str(curvature)
        assert curvature.epochs_to(0.1, optimizer) is not None
        return curvature.predict(optimizer, 5)
    network = nn.Sequential(model, nn.Tanh())
    found = gdcore.curvature(network, nn.MSELoss(), (X, Y))
    return torch.tensor([found.largest_curvature, found.smallest_curvature], device="cpu")


WAYS = {
    "by hand": by_hand,
    "curvature": by_curvature,
    "sweep": by_sweep(),
    "sweep over the rows": by_sweep(method="stepwise"),
    "sweep in batches": by_sweep(batch_size=7, shuffle=True),
    "train_step": by_steps(nn.Linear),
    "train_step of a subclass": by_steps(Own),
    "train_step of other features": by_steps(Doubled),
    **{method: by_fit(method) for method in ("auto", "stepwise", "compressed", "eager")},
    **{
        f"{method} in batches": by_fit(
            method, batch_size=7, shuffle=True, validation=(X, Y), record_every=2
        )
        for method in ("stepwise", "eager")
    },
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WAYS)
def test_same_numbers(way: str, name: str) -> None:
    wanted = WAYS[way](name)
    with torch.device("meta"):
        found = WAYS[way](name)
    assert torch.equal(found, wanted)


def test_counts_that_no_kernel_reads_are_torch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on devices other than CUDA's: torch steps that parameter, and gdcore the others."""
    known, new = (nn.Parameter(_W.clone()) for _ in range(2))
    optimizer = gdcore.optim.Adam([known, new], lr=0.01)
    known.grad = X[:1].clone()
    optimizer.step()
    made = gdcore.optim.Adam._fresh_states

    def on_meta(self: Any, group: Any) -> Any:
        fresh = made(self, group)
        for own in fresh.values():
            own["step"] = own["step"].to("meta")
        return fresh

    left: list[Tensor] = []
    step = torch_step.step

    def seen(optimizer: Any, groups: Any, scale: Tensor | None) -> None:
        left.extend(p for group in groups for p in group["params"])
        step(optimizer, groups, scale)

    monkeypatch.setattr(gdcore.optim.Adam, "_fresh_states", on_meta)
    monkeypatch.setattr(torch_step, "step", seen)
    new.grad = X[:1].clone()
    optimizer.step()
    assert len(left) == 1
    assert left[0] is new
    assert [optimizer.state[p]["step"] for p in (known, new)] == [2, 1]
    assert not torch.equal(new, _W)
