"""Updates and loops, emulated: updates equal the CPU's to the bit, loops what steps come to."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from ..kernels import native_step
from ..optimizer_bounds import gradients
from .emulator import Emulator, gradient_like

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("RMSprop", {"lr": 0.05, "alpha": 0.8}),
    ("RMSprop", {"lr": 0.05, "momentum": 0.5, "centered": True, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.1, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.1, "betas": (0.8, 0.9), "amsgrad": True, "maximize": True}),
    ("Adam", {"lr": 0.1, "decoupled_weight_decay": True, "weight_decay": 0.1}),
]


def name(case: tuple[str, dict[str, Any]]) -> str:
    return "-".join([case[0], *case[1]])


def numbers(kind: str, options: dict[str, Any], made: int) -> list[float]:
    """Settings in the order of csrc/cuda/arguments.h."""
    own = {**native_step.DEFAULTS[kind], **options}
    if kind == "SGD":
        keys = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
        return [*(float(own[key]) for key in keys), 0.0, 0.0, float(made == 0)]
    if kind == "RMSprop":
        keys = ("lr", "alpha", "eps", "weight_decay", "momentum", "maximize")
        return [*(float(own[key]) for key in keys), 0.0, 0.0, float(made)]
    rest = (own[key] for key in ("eps", "weight_decay", "decoupled_weight_decay", "maximize"))
    return [own["lr"], 0.0, *own["betas"], *map(float, rest), float(made)]


PLACES = {
    "SGD": ("momentum_buffer", None, None),
    "RMSprop": ("square_avg", "momentum_buffer", "grad_avg"),
    "Adam": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
}


def states(kind: str, options: dict[str, Any], p: Tensor) -> list[Tensor | None]:
    used = native_step.states_of(kind, options)
    return [torch.zeros_like(p) if place in used else None for place in PLACES[kind]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=name)
def test_updates_are_the_cpu_s(
    emulated: Emulator, case: tuple[str, dict[str, Any]], dtype: torch.dtype
) -> None:
    """Tiles, their ends and misaligned tensors: the same bits as on the CPU after three steps."""
    kind, options = case
    sizes, shift = (1, 7, 4096, 5003, 4100), (0, 0, 0, 0, 1)
    memory = [
        torch.randn(n + s, dtype=torch.float64).to(dtype) for n, s in zip(sizes, shift, strict=True)
    ]
    ours = [m[s:] for m, s in zip(memory, shift, strict=True)]
    theirs = [p.clone() for p in ours]
    own = [states(kind, options, p) for p in ours]
    others = [native_step.zeros(kind, options, p) for p in theirs]
    steps = [gradients(3, p) for p in ours]
    for step in range(3):
        slots = [[p, g[step], *s] for p, g, s in zip(ours, steps, own, strict=True)]
        emulated.update(kind, slots, [numbers(kind, options, step)] * len(ours))
        fresh = None
        if kind == "SGD" and step == 0:
            fresh = [{"momentum_buffer": torch.empty_like(p)} for p in theirs]
            native_step.step(
                kind, theirs, [g[step] for g in steps], [{} for _ in theirs], fresh, **options
            )
            others = fresh
        else:
            native_step.step(kind, theirs, [g[step] for g in steps], others, **options)
    for p, q, mine, other in zip(ours, theirs, own, others, strict=True):
        assert torch.equal(p, q)
        for place, state in zip(PLACES[kind], mine, strict=True):
            if state is not None and place is not None:
                assert torch.equal(state, other[place]), place


def test_many_tensors(emulated: Emulator) -> None:
    """More than one launch takes, and settings that change from tensor to tensor."""
    ours = [torch.full((3,), float(i)) for i in range(300)]
    settings = [numbers("SGD", {"lr": 0.25 * (i // 20)}, 0) for i in range(300)]
    slots = [[p, torch.ones(3), None, None, None] for p in ours]
    emulated.update("SGD", slots, settings)
    for i, p in enumerate(ours):
        assert torch.equal(p, torch.full((3,), i - 0.25 * (i // 20)))


@pytest.mark.parametrize(("count", "launches"), [(128, 1), (129, 1), (447, 1), (448, 2)])
@pytest.mark.parametrize("kind", PLACES)
def test_one_group_is_one_launch(emulated: Emulator, kind: str, count: int, launches: int) -> None:
    """Of as many tensors as its arguments hold; a rule is what its settings are, not its bytes."""
    ours = [torch.zeros(3) for _ in range(count)]
    slots = [[p, torch.ones(3), *states(kind, {}, p)] for p in ours]
    emulated.update(kind, slots, [numbers(kind, {"lr": 0.1}, 0)] * len(ours))
    assert emulated.launches() == launches
    assert all(torch.equal(p, ours[0]) and not p.eq(0).any() for p in ours)


def test_many_groups(emulated: Emulator) -> None:
    """Settings of their own for each of as many as the arguments hold."""
    ours = [torch.zeros(3) for _ in range(64)]
    slots = [[p, torch.ones(3), None, None, None] for p in ours]
    emulated.update("SGD", slots, [numbers("SGD", {"lr": float(i)}, 0) for i in range(64)])
    assert emulated.launches() == 1
    assert [p[0].item() for p in ours] == [-float(i) for i in range(64)]


Data = tuple[Tensor, Tensor, Tensor | None]


def problem(model: str, rows: int, d: int, k: int, dtype: torch.dtype) -> tuple[Data, list[Tensor]]:
    generator = torch.Generator().manual_seed(rows + 10 * d + k)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype) * 2 - 1

    if model == "linear":
        return (random(rows, d), random(rows, k), None), [random(k, d), random(k)]
    if model == "polynomial":
        return (random(rows), random(rows), None), [random(d)]
    return (random(rows), random(rows), None), [random(1) for _ in range(4)]


class Loop:
    """The arguments of a loop, and its results."""

    def __init__(self, parameters: Sequence[Tensor], kind: str, options: dict[str, Any]) -> None:
        self.parameters = [p.clone() for p in parameters]
        self.kind, self.options = kind, options
        self.states = [states(kind, options, p) for p in self.parameters]
        count = sum(p.numel() for p in parameters)
        self.losses = parameters[0].new_full((40,), torch.nan)
        self.records = parameters[0].new_full((40, count), torch.nan)
        self.previous = parameters[0].new_full((count,), torch.nan)
        self.status = torch.tensor(-1)

    @property
    def theta(self) -> Tensor:
        return torch.cat([p.reshape(-1) for p in self.parameters])

    def run(self, e: Emulator, model: str, data: Data, epochs: range, stops: bool = True) -> None:
        """Epochs of one loop, whose settings are those at its begin."""
        e.train(
            *(model, data, self.parameters, True),
            *(self.kind, [numbers(self.kind, self.options, 0)] * len(self.parameters)),
            *(self.states, epochs, self.losses, self.status, self.previous, stops),
            records=self.records,
        )

    def step(self, e: Emulator, model: str, data: Data, epoch: int) -> None:
        """One epoch in parts: gradients, then updates."""
        slopes = [gradient_like(p) for p in self.parameters]
        loss = self.losses.new_empty(())
        e.loss(model, data, self.parameters, True, loss, slopes)
        self.losses[epoch] = loss
        parts = zip(self.parameters, slopes, self.states, strict=True)
        slots = [[p, g.to(p.dtype), *s] for p, g, s in parts]
        settings = numbers(self.kind, self.options, epoch)
        e.update(self.kind, slots, [settings] * len(slots))
        self.records[epoch] = self.theta


SMALL = (
    ("linear", 3, 1, 1),
    ("linear", 40, 1, 1),
    ("linear", 50, 3, 2),
    ("linear", 9, 30, 4),
    ("linear", 300, 12, 1),
    ("polynomial", 700, 4, 1),
    ("polynomial", 50, 9, 1),
    ("legendre", 60, 1, 1),
)


@pytest.mark.parametrize("case", [CASES[1], CASES[4], CASES[6]], ids=name)
@pytest.mark.parametrize(("model", "rows", "d", "k"), SMALL)
def test_one_launch(
    emulated: Emulator, model: str, rows: int, d: int, k: int, case: tuple[str, dict[str, Any]]
) -> None:
    """A whole loop in one launch comes to what its epochs in parts come to."""
    data, parameters = problem(model, rows, d, k, torch.float64)
    whole, parts, halves = (Loop(parameters, *case) for _ in range(3))
    whole.run(emulated, model, data, range(12))
    for epoch in range(12):
        parts.step(emulated, model, data, epoch)
    # Orders of summation differ; twelve steps of such rates do not amplify it much.
    torch.testing.assert_close(whole.losses[:12], parts.losses[:12], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(whole.records[:12], parts.records[:12], rtol=1e-9, atol=1e-9)
    assert torch.equal(whole.theta, whole.records[11])
    assert torch.equal(whole.previous, whole.records[10])
    assert whole.losses[12:].isnan().all()

    halves.run(emulated, model, data, range(5))
    halves.run(emulated, model, data, range(5, 12))
    assert torch.equal(halves.theta, whole.theta)
    assert torch.equal(halves.records[:12], whole.records[:12])
    assert torch.equal(halves.losses[:12], whole.losses[:12])


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("rows", [1, 5, 8, 9, 128, 257, 4097, 9001])
@pytest.mark.parametrize(
    ("model", "d", "dtype"), [("linear", 1, torch.float32), ("polynomial", 9, torch.float64)]
)
def test_points_of_one_launch(
    emulated: Emulator, model: str, d: int, dtype: torch.dtype, rows: int, weighted: bool
) -> None:
    """Held by few threads or by all, more than they hold, and columns of wider matrices."""
    (x, target, _), parameters = problem(model, 3 * rows, d, 1, dtype)
    x, target = (t.reshape(rows, 3)[:, 1:2] for t in (x, target))
    weight = 2 - x if weighted else None
    if model == "polynomial":
        x, target, weight = (t if t is None else t[:, 0] for t in (x, target, weight))
    whole, parts = (Loop(parameters, *CASES[1]) for _ in range(2))
    data = x, target, weight
    whole.run(emulated, model, data, range(3))
    assert emulated.launches() == (3 if weighted else 1)
    for epoch in range(3):
        parts.step(emulated, model, data, epoch)
    # Orders of summation differ: runs of at most sixteen terms of d operations each.
    bound = 20 * (16 + 2 * d) * torch.finfo(dtype).eps
    torch.testing.assert_close(whole.losses[:3], parts.losses[:3], rtol=bound, atol=0)
    torch.testing.assert_close(whole.theta, parts.theta, rtol=bound, atol=bound)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("model", "rows", "d", "k"), [("linear", 1100, 40, 2), ("legendre", 17_000, 1, 1)]
)
def test_two_launches_an_epoch(
    emulated: Emulator, model: str, rows: int, d: int, k: int, dtype: torch.dtype
) -> None:
    """The update at the end of a pass has the bits of the update by itself, but for half types,
    whose gradients are rounded only where they are stored."""
    data, parameters = problem(model, rows, d, k, dtype)
    whole, parts = (Loop(parameters, *CASES[1]) for _ in range(2))
    whole.run(emulated, model, data, range(3))
    for epoch in range(3):
        parts.step(emulated, model, data, epoch)
    if dtype in (torch.float32, torch.float64):
        assert torch.equal(whole.theta, parts.theta)
        assert torch.equal(whole.losses[:3], parts.losses[:3])
        assert torch.equal(whole.records[:3], parts.records[:3])
        assert torch.equal(whole.previous, parts.records[1])
    else:
        unit = torch.finfo(dtype).eps
        torch.testing.assert_close(whole.theta, parts.theta, rtol=6 * unit, atol=6 * unit)


@pytest.mark.parametrize(
    ("model", "rows", "d", "k"),
    [("linear", 20, 1, 1), ("linear", 20, 3, 2), ("linear", 1100, 40, 2)],
)
@pytest.mark.parametrize("epochs", [range(30), None], ids=["at once", "one by one"])
def test_divergence(
    emulated: Emulator, model: str, rows: int, d: int, k: int, epochs: range | None
) -> None:
    """The first loss that is not finite ends the loop; nothing is written after it."""
    data, parameters = problem(model, rows, d, k, torch.float32)
    loop = Loop(parameters, "SGD", {"lr": 1e5})
    for one in [epochs] if epochs is not None else [range(i, i + 1) for i in range(30)]:
        loop.run(emulated, model, data, one)
    at = int(loop.status)
    assert 0 < at < 29
    assert loop.losses[:at].isfinite().all()
    assert not loop.losses[at].isfinite()
    assert loop.losses[at + 1 :].isnan().all()
    assert torch.equal(loop.theta, loop.records[at - 1])
    assert torch.equal(loop.previous, loop.records[at - 2])


def test_divergence_may_go_on(emulated: Emulator) -> None:
    data, parameters = problem("linear", 20, 1, 1, torch.float32)
    loop = Loop(parameters, "SGD", {"lr": 1e5})
    loop.run(emulated, "linear", data, range(30), stops=False)
    assert int(loop.status) == -1
    assert not loop.theta.isfinite().all()
