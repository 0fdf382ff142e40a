"""Bad input to gdcore.functional: each an error that says what was expected and what came."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import gdcore

from ..devices import ON_CPU
from .refusal import refused

pytestmark = pytest.mark.usefixtures("device")
functional = gdcore.functional

# Each function with good arguments of float32, by name; the tests spoil one at a time.
GOOD: dict[str, Callable[[], dict[str, Any]]] = {
    "mse_loss": lambda: {"input": torch.ones(5, 2), "target": torch.zeros(5, 2)},
    "linear_mse_loss": lambda: {
        "x": torch.ones(5, 3),
        "weight": torch.ones(2, 3),
        "bias": torch.ones(2),
        "target": torch.zeros(5, 2),
    },
    "polynomial_mse_loss": lambda: {
        "x": torch.ones(5),
        "coefficients": torch.ones(4),
        "target": torch.zeros(5),
    },
    "legendre_mse_loss": lambda: {
        "x": torch.ones(5),
        **{name: torch.tensor(0.5) for name in "abcd"},
        "target": torch.zeros(5),
    },
    "legendre_p3": lambda: {"x": torch.ones(5)},
}
# What torch's arithmetic meets with a prediction: it promotes.
PROMOTED = [("mse_loss", "input"), *((name, "target") for name in GOOD if name != "legendre_p3")]
ARGUMENTS = [(name, argument) for name, good in GOOD.items() for argument in good()]


def call(name: str, **changes: Any) -> Tensor:
    loss: Tensor = getattr(functional, name)(**{**GOOD[name](), **changes})
    return loss


@pytest.mark.parametrize("name", GOOD)
def test_the_good_arguments_are_good(name: str) -> None:
    assert call(name).isfinite().all()


@pytest.mark.parametrize("value", [[1.0, 2.0], np.ones(5, dtype=np.float32), "x", 1.0])
@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_not_a_tensor(name: str, argument: str, value: Any) -> None:
    with refused(TypeError, argument, "torch.Tensor", type(value).__name__):
        call(name, **{argument: value})


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_none(name: str, argument: str) -> None:
    if argument == "bias":
        assert call(name, bias=None).isfinite()
        return
    with refused(TypeError, argument, "torch.Tensor", "NoneType"):
        call(name, **{argument: None})


OTHER_DTYPES = [
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
    torch.float8_e4m3fn,
    torch.complex64,
    torch.complex128,
]


@pytest.mark.parametrize("dtype", OTHER_DTYPES, ids=str)
@pytest.mark.parametrize("name", GOOD)
def test_a_dtype_that_is_not_taken(name: str, dtype: torch.dtype) -> None:
    """The first argument is named when all have it, the one that has it when one has."""
    good = GOOD[name]()
    first = next(iter(good))
    taken = "torch.float32 or torch.float64, or torch.bfloat16 or torch.float16"
    with refused(TypeError, first, taken, str(dtype)):
        call(name, **{argument: tensor.to(dtype) for argument, tensor in good.items()})
    promotes = not (dtype.is_complex or dtype == torch.float8_e4m3fn)
    for argument, tensor in good.items():
        if promotes and (name, argument) in PROMOTED:
            continue
        with refused(TypeError, argument, "torch.float32", str(dtype)):
            call(name, **{argument: tensor.to(dtype)})


MODELS = [a for a in ARGUMENTS if a[0] != "legendre_p3" and a not in PROMOTED]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "argument"), MODELS)
def test_a_half_type_among_others(name: str, argument: str, dtype: torch.dtype) -> None:
    good = GOOD[name]()
    first = next(iter(good))
    with pytest.raises(TypeError, match=r"^[a-z]+: expected dtype torch\.[a-z0-9]+ ") as info:
        call(name, **{argument: good[argument].to(dtype)})
    assert str(dtype) in str(info.value)
    assert argument == first or str(info.value).startswith(f"{argument}: ")


@pytest.mark.parametrize(("name", "argument"), MODELS)
def test_dtypes_that_differ(name: str, argument: str) -> None:
    good = GOOD[name]()
    first = next(iter(good))
    named = "[a-z]+" if argument == first else argument  # any of the others
    with pytest.raises(TypeError, match=rf"^{named}: expected dtype torch\.float\d\d as "):
        call(name, **{argument: good[argument].double()})


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_a_tensor_on_another_device(name: str, argument: str) -> None:
    with refused(ValueError, argument, "CPU", "meta"):
        call(name, **{argument: GOOD[name]()[argument].to("meta")})


@pytest.mark.parametrize("name", GOOD)
def test_all_tensors_on_another_device(name: str) -> None:
    good = GOOD[name]()
    with refused(ValueError, next(iter(good)), "CPU", "meta"):
        call(name, **{argument: tensor.to("meta") for argument, tensor in good.items()})


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.parametrize("argument", ["input", "target"])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_sparse(argument: str, layout: torch.layout) -> None:
    sparse = torch.eye(5, 2).to_sparse(layout=layout)
    with refused(ValueError, argument, "dense", str(layout)):
        call("mse_loss", **{argument: sparse})


@pytest.mark.parametrize("argument", ["x", "weight", "bias", "target"])
def test_sparse_in_a_model(argument: str) -> None:
    sparse = GOOD["linear_mse_loss"]()[argument].to_sparse()
    with refused(ValueError, argument, "dense", "torch.sparse_coo"):
        call("linear_mse_loss", **{argument: sparse})


@pytest.mark.parametrize("name", GOOD)
def test_fake_tensors_give_a_fake_result(name: str) -> None:
    """As every operation of torch under FakeTensorMode: shapes and dtypes, no arithmetic."""
    with FakeTensorMode() as mode:
        fakes = {argument: mode.from_tensor(tensor) for argument, tensor in GOOD[name]().items()}
        result = call(name, **fakes)
    expected = call(name)
    assert type(result) is type(next(iter(fakes.values())))
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize(("name", "argument"), MODELS)
def test_a_fake_tensor_among_real_ones(name: str, argument: str) -> None:
    """The first that is real is named."""
    good = GOOD[name]()
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(good[argument])
    real = next(other for other in good if other != argument)
    with refused(TypeError, real, "a FakeTensor", "Tensor with memory of its own"):
        call(name, **{argument: fake})


@ON_CPU  # whose own calls these are
def test_a_fake_tensor_where_only_memory_will_do() -> None:
    """Refused before its memory is asked for, of which torch would warn."""
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.ones(4))
    with refused(ValueError, "input", "memory of its own", "a FakeTensor"):
        gdcore._ops.mse(fake, torch.ones(4), "mean", False)


SHAPES: list[tuple[str, str, tuple[int, ...], tuple[str, ...]]] = [
    ("mse_loss", "target", (5,), ("(5, 2)", "(5,)")),
    ("mse_loss", "target", (5, 1), ("(5, 2)", "(5, 1)")),
    ("mse_loss", "target", (2, 5), ("(5, 2)", "(2, 5)")),
    ("mse_loss", "target", (1, 5, 2), ("(5, 2)", "(1, 5, 2)")),
    ("mse_loss", "target", (), ("(5, 2)", "()")),
    ("linear_mse_loss", "x", (5,), ("(n, d)", "(5,)")),
    ("linear_mse_loss", "x", (3,), ("(n, d)", "(3,)", "use x.unsqueeze(0)")),
    ("linear_mse_loss", "x", (5, 3, 1), ("(n, d)", "(5, 3, 1)")),
    ("linear_mse_loss", "weight", (3,), ("(k, d)", "(3,)")),
    ("linear_mse_loss", "weight", (3, 2), ("(k, 3)", "(5, 3)", "(3, 2)", "use weight.t()")),
    ("linear_mse_loss", "weight", (2, 4), ("(k, 3)", "(5, 3)", "(2, 4)")),
    ("linear_mse_loss", "bias", (3,), ("(2,)", "(3,)")),
    ("linear_mse_loss", "bias", (2, 1), ("(2,)", "(2, 1)")),
    ("linear_mse_loss", "bias", (), ("(2,)", "()")),
    ("linear_mse_loss", "target", (5,), ("(5, 2)", "(5,)")),
    ("linear_mse_loss", "target", (2, 5), ("(5, 2)", "(2, 5)")),
    ("linear_mse_loss", "target", (4, 2), ("(5, 2)", "(4, 2)")),
    ("polynomial_mse_loss", "x", (5, 1), ("(n,)", "(5, 1)", "use x.squeeze(-1)")),
    ("polynomial_mse_loss", "x", (), ("(n,)", "()")),
    ("polynomial_mse_loss", "target", (5, 1), ("(5,)", "(5, 1)", "use target.squeeze(-1)")),
    ("polynomial_mse_loss", "target", (4,), ("(5,)", "(4,)")),
    ("polynomial_mse_loss", "coefficients", (4, 1), ("(degree + 1,)", "(4, 1)")),
    ("polynomial_mse_loss", "coefficients", (0,), ("1 to 17", "0")),
    ("polynomial_mse_loss", "coefficients", (18,), ("1 to 17", "18")),
    ("legendre_mse_loss", "x", (5, 1), ("(n,)", "(5, 1)", "use x.squeeze(-1)")),
    ("legendre_mse_loss", "target", (5, 1), ("(5,)", "(5, 1)", "use target.squeeze(-1)")),
    ("legendre_mse_loss", "b", (2,), ("a single value", "(2,)")),
    ("legendre_mse_loss", "d", (0,), ("a single value", "(0,)")),
]


@pytest.mark.parametrize(("name", "argument", "shape", "parts"), SHAPES)
def test_a_shape_that_does_not_fit(
    name: str, argument: str, shape: tuple[int, ...], parts: tuple[str, ...]
) -> None:
    with refused(ValueError, argument, *parts):
        call(name, **{argument: torch.ones(shape)})


def said(run: Callable[[], object]) -> str:
    with pytest.raises(ValueError, match=": expected ") as info:
        run()
    return str(info.value)


@pytest.mark.parametrize(("name", "argument", "shape", "parts"), SHAPES)
def test_the_same_words_without_memory(
    name: str, argument: str, shape: tuple[int, ...], parts: tuple[str, ...]
) -> None:
    """Fake tensors, transforms, half types and ``none`` are checked in Python, as in C++."""
    changes = {argument: torch.ones(shape)}
    native = said(lambda: call(name, **changes))
    tensors = {**GOOD[name](), **changes}
    with FakeTensorMode() as mode:
        fakes = {key: mode.from_tensor(tensor) for key, tensor in tensors.items()}
        assert said(lambda: call(name, **fakes)) == native
    assert said(lambda: call(name, **changes, reduction="none")) == native
    halves = {key: tensor.bfloat16() for key, tensor in tensors.items()}
    assert said(lambda: call(name, **halves)) == native
    assert said(lambda: torch.func.grad(lambda t: call(name, **tensors) * t)(torch.ones(()))) == (
        native
    )


def test_no_mend_is_offered_that_does_not_help() -> None:
    """A vector for a model of three features is neither a column nor, of that length, a row."""
    for run in (
        lambda: call("linear_mse_loss", x=torch.ones(5)),
        lambda: call("linear_mse_loss", x=torch.ones(5), reduction="none"),
    ):
        assert "; use" not in said(run)


def test_rows_against_columns_are_never_broadcast() -> None:
    """(n,) against (n, 1), either way round, in a loss and in a model's target."""
    row, column = torch.ones(4), torch.ones(4, 1)
    with refused(ValueError, "target", "(4,) as input", "(4, 1)", "use target.squeeze(-1)"):
        functional.mse_loss(row, column)
    with refused(ValueError, "target", "(4, 1) as input", "(4,)", "use target.unsqueeze(-1)"):
        functional.mse_loss(column, row)
    with refused(ValueError, "target", "(4, 1)", "(4,)", "use target.unsqueeze(-1)"):
        functional.linear_mse_loss(column, torch.ones(1, 1), None, row)
    with refused(ValueError, "x", "(n, d)", "(4,)", "use x.unsqueeze(-1)"):
        functional.linear_mse_loss(row, torch.ones(1, 1), None, column)


CONSTANT = [a for a in ARGUMENTS if a[1] == "target" and a[0] != "mse_loss"]
CONSTANT += [("polynomial_mse_loss", "x"), ("legendre_mse_loss", "x")]


@pytest.mark.parametrize(("name", "argument"), CONSTANT)
def test_what_must_not_require_grad(name: str, argument: str) -> None:
    leaf = GOOD[name]()[argument].requires_grad_()
    for tensor in (leaf, leaf * 1.0):
        with refused(ValueError, argument, "does not require grad", f"use {argument}.detach()"):
            call(name, **{argument: tensor})
    assert call(name, **{argument: leaf.detach()}).isfinite()


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(("name", "argument"), CONSTANT)
def test_what_requires_grad_where_none_can_be_asked(
    name: str, argument: str, mode: Callable[[], Any], reduction: str
) -> None:
    leaf = GOOD[name]()[argument].requires_grad_()
    expected = call(name, reduction=reduction)
    with mode():
        loss = call(name, **{argument: leaf}, reduction=reduction)
    assert torch.equal(loss, expected)
    assert not loss.requires_grad


@pytest.mark.parametrize("reduction", ["median", "", None, 2, "Mean"])
@pytest.mark.parametrize("name", [name for name in GOOD if name != "legendre_p3"])
def test_a_reduction_that_is_not_one(name: str, reduction: Any) -> None:
    with refused(ValueError, "reduction", "mean", "sum", repr(reduction)):
        call(name, reduction=reduction)
