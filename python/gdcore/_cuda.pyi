from collections.abc import Sequence
from typing import Any

from torch import Tensor

architectures: str
runtime: str
max_degree: int
updates: Any

class Model:
    linear: Model
    polynomial: Model
    legendre: Model
    indexed: Model

class Kind:
    SGD: Kind
    RMSprop: Kind
    Adam: Kind

class Storage:
    float32: Storage
    float64: Storage
    bfloat16: Storage
    float16: Storage

def connect(tensor_class: type[Tensor]) -> None: ...
def devices() -> tuple[int, str]: ...
def mse_scratch(storage: Storage, size: int, weighted: bool) -> int: ...
def scratch(
    storage: Storage,
    rows: int,
    columns: int,
    outputs: int,
    parameters: int,
    weighted_mean: bool,
    dx: bool,
) -> int: ...
def linear_plan(storage: Storage, rows: int, columns: int, outputs: int) -> dict[str, int]: ...
def linear_fits(columns: int, outputs: int) -> bool: ...
def linear_writes_dx(storage: Storage, columns: int, outputs: int) -> bool: ...
def fits_one_block(rows: int, columns: int, outputs: int) -> bool: ...
def mse(
    input: Tensor | None,
    target: Tensor | None,
    weight: Tensor | None,
    mean: bool,
    loss: Tensor | None,
    losses: Tensor | None,
    gradient: Tensor | None,
    scratch: Tensor,
) -> None: ...
def loss(
    model: Model,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    parameters: Sequence[Tensor],
    mean: bool,
    loss: Tensor,
    gradients: Sequence[Tensor],
    dx: Tensor | None,
    scratch: Tensor,
) -> None: ...
def train(
    model: Model,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    parameters: Sequence[Tensor],
    index: Sequence[Tensor],
    mean: bool,
    kind: Kind,
    settings: Sequence[Sequence[float]],
    states: Sequence[Sequence[Tensor | None]],
    first_epoch: int,
    epochs: int,
    stops: bool,
    losses: Tensor,
    status: Tensor | None,
    previous: Tensor | None,
    records: Tensor | None,
    record_every: int,
    max_grad_norm: float,
    norms: Tensor | None,
    scratch: Tensor,
) -> None: ...
def scale(tensor: Tensor, factor: Tensor) -> None: ...
def legendre_p3(x: Tensor | None, grad: Tensor | None, out: Tensor) -> None: ...
