"""Least-squares models trained by gradient descent in PyTorch, with fused C++ kernels.

Three levels, one vocabulary: parts that replace the same-named parts of ``torch``
(`gdcore.functional`, `gdcore.optim`, `gdcore.nn`), a whole step in one native call
(`gdcore.train_step`), and a whole training loop in one native call (`gdcore.fit`).
`gdcore.curvature` says which learning rates train before any step is made, `gdcore.sweep` trains
with many settings at once, `gdcore.plotting` draws.
`gdcore.reference` states every formula in plain PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import functional, nn, optim, reference

__all__ = [
    "Compressed",
    "Curvature",
    "DivergenceError",
    "History",
    "Plan",
    "Run",
    "Sweep",
    "__version__",
    "affine",
    "build_info",
    "compress",
    "curvature",
    "explain",
    "fit",
    "functional",
    "metrics",
    "nn",
    "optim",
    "plotting",
    "reference",
    "stop_when",
    "sweep",
    "train_step",
]

if TYPE_CHECKING:
    from . import affine, metrics, plotting
    from ._build_info import __version__, build_info
    from ._compress import Compressed, compress
    from ._curvature import Curvature, curvature
    from ._explain import Plan, explain
    from ._sweep import Run, Sweep, sweep
    from .stopping import stop_when
    from .training import DivergenceError, History, fit, train_step

# A module never has the name of what it holds: importing it would put it in that one's place.
_WHEN_USED = {
    "Compressed": "_compress",
    "Curvature": "_curvature",
    "DivergenceError": "training",
    "History": "training",
    "Plan": "_explain",
    "Run": "_sweep",
    "Sweep": "_sweep",
    "__version__": "_build_info",
    "affine": "affine",
    "build_info": "_build_info",
    "compress": "_compress",
    "curvature": "_curvature",
    "explain": "_explain",
    "fit": "training",
    "metrics": "metrics",
    "plotting": "plotting",
    "stop_when": "stopping",
    "sweep": "_sweep",
    "train_step": "training",
}


def __getattr__(name: str) -> Any:
    """What not every program needs is imported when it is first used: importing costs time."""
    if name not in _WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_WHEN_USED[name]}", __name__)
    value = module if name == _WHEN_USED[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
