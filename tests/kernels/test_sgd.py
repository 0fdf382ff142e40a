"""sgd against `gdcore.reference.sgd_update` in float64: every option, size and layout, four steps.

How far it may be off (rounding.py counts the roundings): every product and sum of the formula in
the dtype, the settings rounded to it too, carried on from step to step; and what the reference's
own arithmetic rounds in float64.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from gdcore import _ops, reference

from .layouts import MATRICES, Layout, every_other_column
from .native_step import sgd
from .rounding import UNIT, Bounded, bounded, check
from .sizes import LANES, around_lanes

STEPS = 4

# Each instruction set, and what updates tensors on CUDA.
BASELINE = _ops.built_instruction_sets()[0]
PLACES = [pytest.param(name, "cpu", id=name) for name in _ops.built_instruction_sets()]
PLACES += [pytest.param(BASELINE, "emulated", id="emulated")]
PLACES += [pytest.param(BASELINE, "cuda", id="cuda", marks=pytest.mark.cuda)]
everywhere = pytest.mark.parametrize(
    ("instruction_set", "device_of_updates"), PLACES, indirect=True
)


class Settings(NamedTuple):
    lr: float = 0.3
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False


EVERY_SETTING = [
    Settings(0.3, 0.0, 0.0, *rest) for rest in product((0.0, 0.1), (False,), (False, True))
]
EVERY_SETTING += [
    Settings(0.3, 0.9, *rest)
    for rest in product((0.0, 0.4), (0.0, 0.1), (False, True), (False, True))
]


def name(settings: Settings) -> str:
    return "-".join(f"{key}={value}" for key, value in settings._asdict().items() if value)


# What can be written: memory in which no two elements are the same.
WRITABLE = {name: layout for name, layout in MATRICES.items() if not name.startswith("one_")}


def bounds(p: Bounded, grads: list[Bounded], s: Settings) -> list[tuple[Bounded, Bounded | None]]:
    """Parameter and momentum buffer after each step."""

    def rounded(setting: float) -> Bounded:
        return Bounded(np.array(setting, np.longdouble), np.array(p.unit * setting), p.unit)

    b: Bounded | None = None
    steps = []
    for grad in grads:
        g = -grad if s.maximize else grad
        g = g + p * rounded(s.weight_decay)
        if s.momentum != 0:
            b = g if b is None else b * rounded(s.momentum) + g * rounded(1 - s.dampening)
            g = g + b * rounded(s.momentum) if s.nesterov else b
        p = p - g * rounded(s.lr)
        steps.append((p, b))
    return steps


def in_double(b: Bounded) -> Bounded:
    return Bounded(b.value, b.error, UNIT[torch.float64])


def random(dtype: torch.dtype, seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(shape, generator=generator, dtype=dtype, device="cpu")
    return drawn.to(torch.get_default_device())


def check_steps(p: Tensor, buffer: Tensor, grads: list[Tensor], s: Settings, what: str) -> None:
    """Update ``p`` and ``buffer`` in place and compare each step."""
    settings = s._asdict()
    start, exact_grads = bounded(p), [bounded(grad) for grad in grads]
    mine = bounds(start, exact_grads, s)
    theirs = bounds(in_double(start), [in_double(grad) for grad in exact_grads], s)
    double: Tensor = p.double().clone()
    double_buffer: Tensor | None = None
    for step, grad in enumerate(grads):
        sgd([p], [grad], [buffer], [step == 0], **settings)
        double, double_buffer = reference.sgd_update(
            double, grad.double(), double_buffer, **settings
        )
        (bound, buffer_bound), (other, buffer_other) = mine[step], theirs[step]
        check(p, around(double, bound, other), f"parameter, step {step}, {what}")
        if double_buffer is not None and buffer_bound is not None and buffer_other is not None:
            expected = around(double_buffer, buffer_bound, buffer_other)
            check(buffer, expected, f"buffer, step {step}, {what}")


def around(value: Tensor, mine: Bounded, other: Bounded) -> Bounded:
    return Bounded(bounded(value).value, mine.error + other.error, mine.unit)


@pytest.mark.parametrize("settings", EVERY_SETTING, ids=name)
@pytest.mark.usefixtures("device_of_updates", "instruction_set")
@everywhere
def test_sizes(dtype: torch.dtype, settings: Settings) -> None:
    for n in [0, *around_lanes(dtype)]:
        grads = [random(dtype, step, n) for step in range(STEPS)]
        buffer = torch.full((n,), torch.nan, dtype=dtype)  # a fresh buffer is not read
        check_steps(random(dtype, 9, n), buffer, grads, settings, f"{n} elements")


@pytest.mark.parametrize("layout", WRITABLE.values(), ids=WRITABLE)
@pytest.mark.parametrize("settings", [EVERY_SETTING[0], EVERY_SETTING[-1]], ids=name)
@pytest.mark.usefixtures("instruction_set")
def test_layouts(dtype: torch.dtype, settings: Settings, layout: Layout) -> None:
    shape = (7, LANES[dtype] + 3)
    for grad_layout in MATRICES.values():
        grads = [grad_layout(random(dtype, step, *shape)) for step in range(STEPS)]
        for buffer_layout in (layout, every_other_column):
            p = layout(random(dtype, 9, *shape))
            buffer = buffer_layout(random(dtype, 8, *shape))
            what = f"gradient {grad_layout.__name__}, buffer {buffer_layout.__name__}"
            check_steps(p, buffer, grads, settings, what)
            for written in (p, buffer):
                memory = written if written._base is None else written._base
                gaps = memory.numel() - written.numel()
                assert memory.isnan().sum() == gaps, f"written between the elements, {what}"


@pytest.mark.parametrize("settings", EVERY_SETTING, ids=name)
@pytest.mark.usefixtures("device_of_updates", "instruction_set")
@everywhere
def test_a_list_is_each_alone(settings: Settings) -> None:
    """Tensors of several dtypes, sizes and shapes in one call, some with a buffer already."""
    kinds = [(torch.float32, (3, 5)), (torch.float64, (17,)), (torch.float32, ()),
             (torch.float64, (0,)), (torch.float32, (2, 3, 4))]  # fmt: skip
    fresh = [True, False, False, True, False]
    together, alone = (
        [[random(dtype, seed, *shape) for dtype, shape in kinds] for seed in range(3)]
        for _ in range(2)
    )
    parameters, grads, buffers = together
    sgd(parameters, grads, buffers, fresh, **settings._asdict())
    for p, grad, buffer, is_fresh in zip(*alone, fresh, strict=True):
        sgd([p], [grad], [buffer], [is_fresh], **settings._asdict())
    for mine, other in zip(together, alone, strict=True):
        assert all(map(torch.equal, mine, other))


@pytest.mark.usefixtures("device_of_updates", "instruction_set")
@everywhere
def test_versions_move_on(dtype: torch.dtype) -> None:
    """Autograd must see that what it saved has been written."""
    p, grad, buffer = (random(dtype, seed, 5) for seed in range(3))
    versions = [t._version for t in (p, grad, buffer)]
    sgd([p], [grad], [buffer], [False], lr=0.3, momentum=0.9)
    moved = [t._version > before for t, before in zip((p, grad, buffer), versions, strict=True)]
    assert moved == [True, False, True]


@pytest.mark.usefixtures("device_of_updates", "instruction_set")
@everywhere
def test_a_momentum_that_float32_rounds_to_zero(dtype: torch.dtype) -> None:
    """What has a buffer writes it, lanes and the rest alike, and an infinity in it counts."""
    momentum, n = 1e-50, 2 * LANES[dtype] + 1
    grad, buffer = random(dtype, 0, n), torch.full((n,), torch.nan, dtype=dtype)
    sgd([random(dtype, 9, n)], [grad], [buffer], [True], lr=0.3, momentum=momentum)
    assert torch.equal(buffer, grad)
    buffer.fill_(torch.inf)
    sgd([random(dtype, 9, n)], [grad], [buffer], [False], lr=0.3, momentum=momentum)
    vanishes = dtype != torch.float64
    assert (buffer.isnan() if vanishes else buffer.isinf()).all()
