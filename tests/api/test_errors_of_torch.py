"""What a loss refuses as torch's does raises an error of the kind that torch's raises."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gdcore

pytestmark = pytest.mark.usefixtures("device")

Change = Callable[[Tensor], Any]

CHANGES: dict[str, Change] = {
    "a list": lambda t: t.tolist(),
    "an array": lambda t: t.cpu().numpy(),
    "None": lambda t: None,
    "a row less": lambda t: t[1:].clone(),
    "a column more": lambda t: torch.ones(*t.shape[:-1], t.shape[-1] + 1),
    "a dimension more": lambda t: torch.ones(*t.shape, 7),
    "a dimension less": lambda t: torch.ones(t.shape[0] + 4),
    "transposed": lambda t: t.t().contiguous(),
    "integers": lambda t: t.int(),
    "bools": lambda t: t.bool(),
    "complex": lambda t: t.cfloat(),
    "float64": lambda t: t.double(),
    "float16": lambda t: t.half(),
    "on another device": lambda t: t.to("meta"),
    "sparse": lambda t: t.to_sparse(),
    "sparse rows": lambda t: t.to_sparse_csr() if t.dim() == 2 else t.to_sparse(),
}


def linear(x: Any, weight: Any, bias: Any, target: Any) -> Tensor:
    return F.mse_loss(F.linear(x, weight, bias), target)


# The losses, and the shapes of good arguments.
LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "mse_loss": (gdcore.functional.mse_loss, F.mse_loss, [(5, 2), (5, 2)]),
    "linear_mse_loss": (
        gdcore.functional.linear_mse_loss,
        linear,
        [(5, 3), (2, 3), (2,), (5, 2)],
    ),
}
PLACES = [(name, place) for name, (_, _, shapes) in LOSSES.items() for place in range(len(shapes))]
SINGLE = [(name, (place,)) for name, place in PLACES]
ALL = [(name, tuple(range(len(shapes)))) for name, (_, _, shapes) in LOSSES.items()]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("name", "places"), [*SINGLE, *ALL], ids=str)
@pytest.mark.filterwarnings("ignore")  # torch's, of what it broadcasts
def test_the_kind_of_error(name: str, places: tuple[int, ...], change: str) -> None:
    mine, theirs, shapes = LOSSES[name]
    good = [torch.ones(shape) for shape in shapes]
    given = [CHANGES[change](t) if i in places else t for i, t in enumerate(good)]
    try:
        theirs(*given)
    except AttributeError:  # of what is no tensor: no answer to imitate
        expected: type[Exception] = TypeError
    except (RuntimeError, TypeError, ValueError) as error:
        kinds = (RuntimeError, TypeError, ValueError)
        expected = next(kind for kind in kinds if isinstance(error, kind))
    else:
        return  # torch takes it
    with pytest.raises(expected, match=r"^[a-z]+: expected .*, got ") as info:
        mine(*given)
    assert isinstance(info.value, (TypeError, ValueError))


@pytest.mark.parametrize("reduction", ["median", None])
def test_a_reduction(reduction: Any) -> None:
    good = torch.ones(3), torch.ones(3)
    for loss in (gdcore.functional.mse_loss, F.mse_loss):
        with pytest.raises(ValueError, match="reduction"):
            loss(*good, reduction=reduction)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["target", "weight"])
def test_the_dtype_that_is_expected_is_the_input_s(name: str, dtype: torch.dtype) -> None:
    """Not any that some loss takes."""
    given = {"input": torch.ones(3), "target": torch.ones(3), "weight": torch.ones(3)}
    given = {key: value.to(dtype) for key, value in given.items()}
    given[name] = torch.ones(3, dtype=torch.complex64)
    with pytest.raises(
        TypeError, match=f"^{name}: expected dtype {dtype} as input, got torch.complex64"
    ):
        gdcore.functional.mse_loss(**given)


def test_a_dtype_that_autocast_leaves_alone(device: torch.device) -> None:
    """What is expected is what the input has become."""
    said = "^target: expected dtype torch.float32 as input under autocast, got torch.complex64"
    with torch.autocast(device.type), pytest.raises(TypeError, match=said):
        gdcore.functional.mse_loss(torch.ones(3).bfloat16(), torch.ones(3, dtype=torch.complex64))
