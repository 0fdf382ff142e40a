"""Every op of torch.ops.gdcore under torch.library.opcheck, on plain and awkward inputs."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import gdcore

from ..devices import NOT_EMULATED, ON_CPU

pytestmark = pytest.mark.usefixtures("device")

Arguments = tuple[Tensor | str | bool | None, ...]


def vectors() -> Iterator[Tensor]:
    """One value, none, many, strided, expanded, of both dtypes."""
    for dtype in (torch.float32, torch.float64):
        yield torch.randn(1, dtype=dtype)
        yield torch.randn(0, dtype=dtype)
        yield torch.randn(35, dtype=dtype)
        yield torch.randn(9, 4, dtype=dtype)[:, 1]
        yield torch.randn(1, dtype=dtype).expand(7)


def matrices(columns: int) -> Iterator[Tensor]:
    for dtype in (torch.float32, torch.float64):
        yield torch.randn(6, columns, dtype=dtype)
        yield torch.randn(0, columns, dtype=dtype)
        yield torch.randn(columns, 6, dtype=dtype).t()
        yield torch.randn(12, 2 * columns, dtype=dtype)[::2, ::2]


def samples() -> Iterator[tuple[str, Arguments]]:
    for v in vectors():
        for reduction in ("mean", "sum", "none"):
            for gradient in (False, True):
                yield "mse", (v, torch.randn_like(v), reduction, gradient)
            yield "mse", (v, torch.randn_like(v), reduction, True, torch.rand_like(v))
        yield "polynomial_mse", (v, v.new_ones(4), torch.randn_like(v), "mean")
        yield "polynomial_mse", (v, v.new_ones(4), torch.randn_like(v), "mean", torch.rand_like(v))
        scalars = v.new_tensor([0.5, -1.0, 0.1, 0.3]).unbind()
        yield "legendre_mse", (v, *scalars, torch.randn_like(v), "sum")
        yield "legendre_p3", (v,)
        yield "legendre_p3_backward", (torch.randn_like(v), v)
    for x in matrices(3):
        yield "mse", (x, torch.randn_like(x), "none", True)
        yield "legendre_p3", (x,)
        yield "legendre_p3_backward", (torch.randn_like(x), x)
        for outputs in (1, 9):
            weight, target = x.new_ones(outputs, 3), x.new_ones(len(x), outputs)
            yield "linear_mse", (x, weight, x.new_ones(outputs), target, "mean", True)
            yield "linear_mse", (x, weight.t().contiguous().t(), None, target, "sum", False)
            rows = x.new_ones(len(x), 1).expand(len(x), outputs)
            yield "linear_mse", (x, weight, None, target, "mean", True, rows)
    yield "mse", (torch.randn(2, 3, 4), torch.randn(2, 4, 3).transpose(1, 2), "mean", True)
    yield "mse", (torch.tensor(1.0), torch.tensor(3.0), "mean", True)
    for d in (0, 40):
        yield (
            "linear_mse",
            (torch.randn(5, d), torch.randn(2, d), None, torch.ones(5, 2), "sum", True),
        )


OPS = (
    "mse",
    "linear_mse",
    "polynomial_mse",
    "legendre_mse",
    "legendre_p3",
    "legendre_p3_backward",
)


@ON_CPU
def test_these_are_all_the_ops() -> None:
    registered = {
        name.removeprefix("gdcore::")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("gdcore::")
    }
    assert registered == set(OPS)


def is_nothing(arguments: Arguments) -> bool:
    """A mean of nothing is NaN, which opcheck takes for a difference where it compares results."""
    return isinstance(arguments[0], Tensor) and arguments[0].numel() == 0


@NOT_EMULATED
@pytest.mark.parametrize("name", OPS)
def test_schema_and_fake(name: str) -> None:
    """What the schema promises (nothing written, nothing aliased) and what a fake gives."""
    op = getattr(torch.ops.gdcore, name).default
    found = [arguments for op_name, arguments in samples() if op_name == name]
    assert len(found) >= 10
    for arguments in found:
        torch.library.opcheck(
            op,
            arguments,
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
        )


@NOT_EMULATED
@pytest.mark.parametrize("name", OPS)
def test_traced_with_dynamic_shapes(name: str) -> None:
    op = getattr(torch.ops.gdcore, name).default
    found = [a for n, a in samples() if n == name and not is_nothing(a)]
    for arguments in found[2:24:7]:
        torch.library.opcheck(op, arguments, test_utils=("test_aot_dispatch_dynamic",))


@NOT_EMULATED
@pytest.mark.parametrize("name", OPS)
def test_arguments_are_left_alone(name: str) -> None:
    op = getattr(torch.ops.gdcore, name).default
    for op_name, arguments in samples():
        if op_name != name:
            continue
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        before = [(t.clone(), t._version) for t in tensors]
        op(*arguments)
        for tensor, (value, version) in zip(tensors, before, strict=True):
            assert torch.equal(tensor, value)
            assert tensor._version == version


@NOT_EMULATED
def test_ops_are_what_the_functions_call() -> None:
    x, target = torch.randn(8, 2), torch.randn(8, 1)
    weight, bias = torch.randn(1, 2), torch.randn(1)
    loss, *_ = torch.ops.gdcore.linear_mse(x, weight, bias, target, "mean", False)
    assert torch.equal(loss, gdcore.functional.linear_mse_loss(x, weight, bias, target))


@NOT_EMULATED
@pytest.mark.parametrize("name", OPS)
def test_traced_with_static_shapes(name: str) -> None:
    op = getattr(torch.ops.gdcore, name).default
    found = [a for n, a in samples() if n == name and not is_nothing(a)]
    for arguments in found[1:24:7]:
        torch.library.opcheck(op, arguments, test_utils=("test_aot_dispatch_static",))


@ON_CPU  # CUDA's ops take half types, as no fake does
@pytest.mark.parametrize("name", OPS)
def test_a_fake_refuses_what_the_op_refuses(name: str) -> None:
    """Each tensor in turn with another dtype, and with one dimension too many."""
    op = getattr(torch.ops.gdcore, name).default
    arguments = next(a for n, a in samples() if n == name and len(a) >= 1)
    spoilt: list[tuple[int, Tensor]] = []
    for place, argument in enumerate(arguments):
        if isinstance(argument, Tensor):
            spoilt.append((place, argument.bfloat16()))
            if not name.startswith("legendre_p3"):
                spoilt.append((place, argument.new_ones(2, *argument.shape, 3)))
    assert len(spoilt) >= 1
    for place, tensor in spoilt:
        wrong = (*arguments[:place], tensor, *arguments[place + 1 :])
        with pytest.raises((TypeError, ValueError)) as info:
            op(*wrong)
        with FakeTensorMode() as mode:
            fakes = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in wrong]
            with pytest.raises(type(info.value)) as other:
                op(*fakes)
        assert str(other.value) == str(info.value)
