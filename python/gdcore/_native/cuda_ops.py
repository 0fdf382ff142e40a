"""The native operations on CUDA tensors: the only importer of ``_cuda``.

Everything goes to PyTorch's current stream of the tensors' device, and nothing waits for it. Memory
that launches need for themselves comes from torch's allocator, which knows streams and graphs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# Not from the package, which says of a build without it what a broken build says.
import gdcore._cuda as _cuda

from .. import _checks

native = _cuda
native.connect(torch.Tensor)
_checks.devices.add("cuda")

ARCHITECTURES: str = native.architectures
RUNTIME: str = native.runtime
UPDATES = native.updates

STORAGES = {
    torch.float32: native.Storage.float32,
    torch.float64: native.Storage.float64,
    torch.bfloat16: native.Storage.bfloat16,
    torch.float16: native.Storage.float16,
}
MODELS = {
    "linear": native.Model.linear,
    "polynomial": native.Model.polynomial,
    "legendre": native.Model.legendre,
    "indexed": native.Model.indexed,
}


def devices() -> tuple[int, str]:
    """How many devices the runtime finds, and what it says where it finds none."""
    found: tuple[int, str] = native.devices()
    return found


def _doubles(count: int, like: Tensor) -> Tensor:
    return torch.empty(count, dtype=torch.float64, device=like.device)


def _dense(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _gradient(tensor: Tensor) -> Tensor:
    """Room for a tensor's gradient: float32 for a half type, to be rounded once, after the factor
    from above, which a number too small for float16 would not live to see.
    """
    dtype = torch.float32 if tensor.dtype in _checks.HALF else tensor.dtype
    return torch.empty_like(tensor, dtype=dtype, memory_format=torch.contiguous_format)


def _one_dtype(**tensors: Tensor | None) -> None:
    _checks.any_dtype(tuple(tensors), tuple(tensors.values()))


def _flat(tensor: Tensor | None) -> Tensor | None:
    """What the kernels take: any strides of one or two dimensions, else without gaps."""
    return tensor if tensor is None or tensor.dim() in (1, 2) else tensor.contiguous()


def mse(
    input: Tensor, target: Tensor, reduction: str, gradient: bool, weight: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    _one_dtype(input=input, target=target, weight=weight)
    _checks.mse(input, target, weight)
    loss = _dense(input) if reduction == "none" else input.new_empty(())
    slope = _gradient(input) if gradient else None
    mean = reduction == "mean"
    size = native.mse_scratch(STORAGES[input.dtype], input.numel(), mean and weight is not None)
    scalar, each = (None, loss) if reduction == "none" else (loss, None)
    first, second, third = map(_flat, (input, target, weight))
    native.mse(first, second, third, mean, scalar, each, slope, _doubles(size, input))
    return loss, slope


def _model_loss(
    model: str,
    data: tuple[Tensor, Tensor, Tensor | None],
    parameters: Sequence[Tensor],
    reduction: str,
    dx: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """The loss and the gradients of the parameters."""
    x, _, weight = data
    mean = reduction == "mean"
    loss, gradients = x.new_empty(()), [_gradient(p) for p in parameters]
    memory = scratch(model, data, parameters, mean and weight is not None, dx is not None)
    dense = [p.contiguous() for p in parameters]
    native.loss(MODELS[model], *data, dense, mean, loss, gradients, dx, memory)
    return loss, *gradients


def scratch(
    model: str,
    data: tuple[Tensor, Tensor, Tensor | None],
    parameters: Sequence[Tensor],
    weighted_mean: bool,
    dx: bool = False,
    index: Tensor | None = None,
) -> Tensor:
    x = data[0]
    columns, outputs = _extent(model, x, parameters)
    count = sum(p.numel() for p in parameters)
    if index is not None:
        outputs, columns = index.shape
        count = index.numel()
    storage = STORAGES[x.dtype]
    size = native.scratch(storage, len(x), columns, outputs, count, weighted_mean, dx)
    return _doubles(size, x)


def _extent(model: str, x: Tensor, parameters: Sequence[Tensor]) -> tuple[int, int]:
    """Columns and outputs."""
    return (x.shape[1], parameters[0].shape[0]) if model == "linear" else (1, 1)


def linear_fits(shape: Sequence[int], dtype: torch.dtype, dx: bool = False) -> bool:
    """Whether the kernels take a weight of this shape, else it is for matrix products."""
    outputs, columns = shape
    if columns < 1 or outputs < 1 or not native.linear_fits(columns, outputs):
        return False
    writes: bool = native.linear_writes_dx(STORAGES[dtype], columns, outputs)
    return writes or not dx


def linear_mse(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    reduction: str,
    dx: bool,
    loss_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    _one_dtype(x=x, target=target, weight=weight, bias=bias, loss_weight=loss_weight)
    _checks.linear_mse(x, weight, bias, target, loss_weight)
    if not linear_fits(weight.shape, weight.dtype, dx):
        widened = _checks.widened
        loss, dweight, dbias, slope = _linear_mse_by_products(
            *(widened(x), widened(weight), widened(bias), widened(target), widened(loss_weight)),
            *(reduction, dx),
        )
        return loss.to(x.dtype), dweight, dbias, slope
    parameters = (weight,) if bias is None else (weight, bias)
    slope = _gradient(x) if dx else None
    loss, dweight, *rest = _model_loss(
        "linear", (x, target, loss_weight), parameters, reduction, slope
    )
    return loss, dweight, rest[0] if rest else None, slope


def _linear_mse_by_products(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    loss_weight: Tensor | None,
    reduction: str,
    dx: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Wide rows or many outputs are bound by arithmetic, which cuBLAS does best."""
    prediction = torch.nn.functional.linear(x, weight, bias)
    loss, slope = mse(prediction, target, reduction, True, loss_weight)
    assert slope is not None
    return (
        loss,
        slope.t() @ x,
        None if bias is None else slope.sum(0),
        slope @ weight if dx else None,
    )


def polynomial_mse(
    x: Tensor, coefficients: Tensor, target: Tensor, reduction: str, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    _one_dtype(x=x, target=target, coefficients=coefficients, weight=weight)
    _checks.polynomial_mse(x, coefficients, target, weight, max_degree=native.max_degree)
    data = (x, target, weight)
    loss, gradient = _model_loss("polynomial", data, (coefficients,), reduction)
    return loss, gradient


def legendre_mse(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    target: Tensor,
    reduction: str,
    weight: Tensor | None = None,
) -> tuple[Tensor, ...]:
    _one_dtype(x=x, target=target, a=a, b=b, c=c, d=d, weight=weight)
    _checks.legendre_mse(x, a, b, c, d, target, weight)
    return _model_loss("legendre", (x, target, weight), (a, b, c, d), reduction)


def scale(gradient: Tensor, factor: Tensor) -> Tensor:
    """Times a single number of the same dtype, in place: a 1 costs nothing, and nobody waits."""
    native.scale(gradient, factor)
    return gradient


def legendre_p3(x: Tensor) -> Tensor:
    _one_dtype(x=x)
    out = _dense(x)
    native.legendre_p3(_flat(x), None, out)
    return out


def legendre_p3_backward(grad: Tensor, x: Tensor) -> Tensor:
    _one_dtype(x=x, grad=grad)
    out = _dense(x)
    native.legendre_p3(_flat(x), _flat(grad), out)
    return out
