"""Peers that may not be installed."""

from __future__ import annotations

import importlib.util

JAX, SCIKIT_LEARN = "JAX", "scikit-learn"
MODULES = {JAX: "jax", SCIKIT_LEARN: "sklearn"}
NOT_INSTALLED = "not installed"


def installed(peer: str) -> bool:
    """Whether a peer's module can be imported; nothing is imported."""
    return importlib.util.find_spec(MODULES[peer]) is not None


def missing(*peers: str) -> dict[str, str]:
    """Those of the peers that cannot take part, and why."""
    return {peer: NOT_INSTALLED for peer in peers if not installed(peer)}
