"""Least-squares models trained by gradient descent in PyTorch, with fused C++ kernels.

Three levels, one vocabulary: parts that replace the same-named parts of ``torch``
(`gdcore.functional`, `gdcore.optim`, `gdcore.nn`), a whole step in one native call
(`gdcore.train_step`), and a whole training loop in one native call (`gdcore.fit`).
`gdcore.reference` states every formula in plain PyTorch.
"""

from . import affine, functional, metrics, nn, optim, reference
from ._build_info import __version__, build_info
from .compress import Compressed, compress
from .explain import Plan, explain
from .stopping import stop_when
from .training import DivergenceError, History, fit, train_step

__all__ = [
    "Compressed",
    "DivergenceError",
    "History",
    "Plan",
    "__version__",
    "affine",
    "build_info",
    "compress",
    "explain",
    "fit",
    "functional",
    "metrics",
    "nn",
    "optim",
    "reference",
    "stop_when",
    "train_step",
]
