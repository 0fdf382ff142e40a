"""What takes part in this installation: peers that may be missing, and parts of gdcore."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterable
from typing import Any

import gdcore

JAX, SCIKIT_LEARN = "JAX", "scikit-learn"
MODULES = {JAX: "jax", SCIKIT_LEARN: "sklearn"}
NOT_INSTALLED = "not installed"
NOT_HERE = "not in this version"


def installed(peer: str) -> bool:
    """Whether a peer's module can be imported; nothing is imported."""
    return importlib.util.find_spec(MODULES[peer]) is not None


def missing(*peers: str) -> dict[str, str]:
    """Those of the peers that cannot take part, and why."""
    return {peer: NOT_INSTALLED for peer in peers if not installed(peer)}


def fit_takes(argument: str) -> bool:
    return argument in inspect.signature(gdcore.fit).parameters


def has(need: str) -> bool:
    """Whether gdcore has something: a name of its own, or an argument of ``fit``."""
    return hasattr(gdcore, need) or fit_takes(need)


def lacking(needs: Iterable[str]) -> list[str]:
    return [need for need in needs if not has(need)]


def by_method(method: str) -> dict[str, Any]:
    """``fit``'s argument; without it every fit is stepwise."""
    return {"method": method} if fit_takes("method") else {}
