"""Least-squares models trained by gradient descent in PyTorch, with fused C++ kernels.

Three levels, one vocabulary: parts that replace the same-named parts of ``torch``
(`gdcore.functional`, `gdcore.optim`, `gdcore.nn`), a whole step in one native call
(`gdcore.train_step`), and a whole training loop in one native call (`gdcore.fit`).
`gdcore.curvature` says which learning rates train before any step is made, `gdcore.sweep` trains
with many settings at once, `gdcore.plotting` draws.
`gdcore.reference` states every formula in plain PyTorch.
"""

from typing import TYPE_CHECKING, Any

from . import affine, functional, metrics, nn, optim, reference
from ._build_info import __version__, build_info
from .compress import Compressed, compress
from .curvature import Curvature, curvature
from .explain import Plan, explain
from .stopping import stop_when
from .sweep import Run, Sweep, sweep
from .training import DivergenceError, History, fit, train_step

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
    from . import plotting


def __getattr__(name: str) -> Any:
    """`gdcore.plotting` is imported when it is first used."""
    if name == "plotting":
        import importlib

        return importlib.import_module(".plotting", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
