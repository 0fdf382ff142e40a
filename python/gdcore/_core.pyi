"""The native core. Only `gdcore._ops` imports it; what it accepts is checked there and in C++."""

from collections.abc import Sequence

from torch import Tensor

__version__: str
compiler: str
max_degree: int

def connect(tensor_class: type) -> None: ...
def built_instruction_sets() -> list[str]: ...
def available_instruction_sets() -> list[str]: ...
def active_instruction_set() -> str: ...
def choose_instruction_set(name: str) -> None: ...
def mse(
    input: Tensor,
    target: Tensor,
    reduction: str,
    loss: Tensor,
    gradient: Tensor | None,
    threads: int,
) -> None: ...
def model_loss(
    model: str,
    x: Tensor,
    target: Tensor,
    parameters: Sequence[Tensor],
    mean: bool,
    loss: Tensor,
    gradients: Sequence[Tensor],
    dx: Tensor | None,
    threads: int,
) -> None: ...
def legendre_p3(x: Tensor, grad: Tensor | None, out: Tensor, threads: int) -> None: ...
def sgd(
    parameters: Sequence[Tensor],
    grads: Sequence[Tensor],
    momenta: Sequence[Tensor | None],
    fresh: Sequence[bool],
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    threads: int,
) -> None: ...
def train(
    model: str,
    x: Tensor,
    target: Tensor,
    target_name: str,
    flat: bool,
    parameters: Sequence[Tensor],
    momenta: Sequence[Tensor | None],
    settings: Sequence[tuple[int, float, float, float, float, bool, bool, bool]],
    mean: bool,
    losses: Tensor,
    epochs: int,
    record_every: int,
    records: Tensor | None,
    stop_at_infinity: bool,
    threads: int,
) -> tuple[int, str, BaseException | None]: ...
