"""Modules: the loss, and the models that gdcore steps natively."""

import torch
from torch import Tensor

from . import functional, reference
from ._ops import MAX_DEGREE

__all__ = ["LegendreRegression", "LinearRegression", "MSELoss", "PolynomialRegression"]


class MSELoss(torch.nn.MSELoss):
    """`gdcore.functional.mse_loss` as a module: ``Σ (input - target)² / n``.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        size_average: deprecated, with ``reduce``, in favour of ``reduction``, as in torch.
        reduce: see ``size_average``.

    Raises:
        ValueError: ``reduction`` is none of these.

    Example:
        >>> gdcore.nn.MSELoss("sum")(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).item()
        5.0

    Reference:
        ``torch.nn.MSELoss``.
    """

    def __init__(
        self,
        reduction: str = "mean",
        *,
        size_average: bool | None = None,
        reduce: bool | None = None,
    ) -> None:
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction: expected mean, sum or none, got {reduction!r}")
        super().__init__(size_average, reduce, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.mse_loss(input, target, self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class LinearRegression(torch.nn.Linear):
    """A line, plane or hyperplane: ``x weightᵀ + bias``. A ``torch.nn.Linear`` with defaults.

    Shapes: ``x`` (n, in_features) to (n, out_features).

    Args:
        in_features: number of features.
        out_features: number of outputs.
        bias: whether there is an intercept.

    Example:
        >>> sorted(gdcore.nn.LinearRegression(3).state_dict())
        ['bias', 'weight']

    Reference:
        ``torch.nn.Linear``.
    """

    def __init__(self, in_features: int = 1, out_features: int = 1, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)


class PolynomialRegression(torch.nn.Module):
    """A polynomial in one variable: ``Σₘ coefficients[m] xᵐ``, standard normal at the start.

    Shapes: ``x`` (n,) to (n,).

    Args:
        degree: 0 to 16.

    Raises:
        TypeError: ``degree`` is not an int.
        ValueError: ``degree`` is outside that range.

    Example:
        >>> model = gdcore.nn.PolynomialRegression(2)
        >>> _ = model.load_state_dict({"coefficients": torch.tensor([1.0, 0.0, 3.0])})
        >>> model(torch.tensor([0.0, 2.0])).tolist()
        [1.0, 13.0]

    Reference:
        "Learning PyTorch with examples", the cubic fitted to a sine.
    """

    def __init__(self, degree: int) -> None:
        super().__init__()
        if not isinstance(degree, int) or isinstance(degree, bool):
            raise TypeError(f"degree: expected an int, got {type(degree).__name__}")
        if not 0 <= degree <= MAX_DEGREE:
            raise ValueError(f"degree: expected 0 to {MAX_DEGREE}, got {degree}")
        self.coefficients = torch.nn.Parameter(torch.randn(degree + 1))

    @property
    def degree(self) -> int:
        return self.coefficients.numel() - 1

    def forward(self, x: Tensor) -> Tensor:
        return reference.polynomial(x, self.coefficients)

    def extra_repr(self) -> str:
        return f"degree={self.degree}"


class LegendreRegression(torch.nn.Module):
    """``a + b P₃(c + d x)``, with a = 0, b = -1, c = 0, d = 0.3 at the start.

    Shapes: ``x`` (n,) to (n,); a, b, c and d have shape ().

    Example:
        >>> gdcore.nn.LegendreRegression()(torch.tensor([0.0])).tolist()
        [0.0]

    Reference:
        "Learning PyTorch with examples", the custom ``autograd.Function``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(0.0))
        self.b = torch.nn.Parameter(torch.tensor(-1.0))
        self.c = torch.nn.Parameter(torch.tensor(0.0))
        self.d = torch.nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.a + self.b * functional.legendre_p3(self.c + self.d * x)
