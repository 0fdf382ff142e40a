"""mse against the exact sums: every size, reduction, shape and layout.

How far it may be off (rounding.py counts the roundings): a difference, its square and the sum over
elements as `total` says; the gradient is the difference times a factor that is itself rounded.
"""

import pytest
import torch
from torch import Tensor

from gdcore import _ops

from .layouts import MATRICES, VECTORS, Layout, contiguous
from .rounding import bounded, check
from .sizes import LANES, around_a_chunk, around_lanes


def make(dtype: torch.dtype, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    input = torch.empty(shape, dtype=dtype).uniform_(1, 2, generator=generator)
    return input, torch.empty(shape, dtype=dtype).uniform_(-1, 0.5, generator=generator)


def check_all(input: Tensor, target: Tensor, what: str) -> None:
    residual = bounded(input) - bounded(target)
    squares = residual * residual
    for reduction, divisor in (("none", 1), ("mean", input.numel()), ("sum", 1)):
        loss, gradient = _ops.mse(input, target, reduction, True)
        if reduction == "none":
            check(loss, squares, f"losses of {what}")
        else:
            check(loss, squares.reshape(-1).total().result(1, divisor), f"{reduction} of {what}")
        slope = residual.result(2, divisor)
        slope = slope if divisor == 1 else slope.result(1, 1)
        check(gradient, slope, f"gradient of {what}, {reduction}")

        without, nothing = _ops.mse(input, target, reduction, False)
        assert nothing is None
        assert torch.equal(without, loss)


@pytest.mark.usefixtures("instruction_set")
def test_sizes(dtype: torch.dtype) -> None:
    for n in around_lanes(dtype) + around_a_chunk(2):
        check_all(*make(dtype, n), f"{n} elements")
        check_all(*make(dtype, n, 3), f"{n} rows of 3")


@pytest.mark.parametrize("layout", MATRICES)
@pytest.mark.usefixtures("instruction_set")
def test_matrix_layouts(dtype: torch.dtype, layout: str) -> None:
    for shape in ((2 * LANES[dtype] + 1, 3), (5, 2 * LANES[dtype])):
        input, target = make(dtype, *shape)
        check_layouts(MATRICES[layout](input), target, MATRICES)


@pytest.mark.parametrize("layout", VECTORS)
@pytest.mark.usefixtures("instruction_set")
def test_vector_layouts(dtype: torch.dtype, layout: str) -> None:
    input, target = make(dtype, 2 * LANES[dtype] + 1)
    check_layouts(VECTORS[layout](input), target, VECTORS)


def check_layouts(input: Tensor, target: Tensor, layouts: dict[str, Layout]) -> None:
    for name, arrange in layouts.items():
        arranged = arrange(target)
        check_all(input, arranged, f"target {name}")
        same = _ops.mse(contiguous(input), contiguous(arranged), "mean", True)
        for result, other in zip(_ops.mse(input, arranged, "mean", True), same, strict=True):
            assert torch.equal(result, other), name


@pytest.mark.usefixtures("instruction_set")
def test_shapes(dtype: torch.dtype) -> None:
    for shape in ((), (1, 1), (1, 40), (2, 3, 5), (2, 3, 5, 2)):
        check_all(*make(dtype, *shape), f"shape {shape}")
    input, target = make(dtype, 2, 3, 5)
    check_all(input.permute(2, 0, 1), target.permute(2, 0, 1).contiguous(), "permuted input")
    check_all(input, target[:, :, :1].expand(2, 3, 5), "expanded target")


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 3)])
@pytest.mark.usefixtures("instruction_set")
def test_no_elements(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    empty = torch.empty(shape, dtype=dtype)
    for reduction, value in (("mean", torch.nan), ("sum", 0.0)):
        loss, gradient = _ops.mse(empty, empty, reduction, True)
        assert torch.allclose(loss, torch.tensor(value, dtype=dtype), equal_nan=True)
        assert gradient.shape == shape
    assert _ops.mse(empty, empty, "none", True)[0].shape == shape


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.usefixtures("instruction_set")
def test_not_finite(dtype: torch.dtype, value: float) -> None:
    input, target = make(dtype, LANES[dtype] + 3)
    input[-2] = value
    assert not _ops.mse(input, target, "mean", True)[0].isfinite()
    losses, gradient = _ops.mse(input, target, "none", True)
    for result in (losses, gradient):
        assert (~result.isfinite()).nonzero().flatten().tolist() == [len(input) - 2]
