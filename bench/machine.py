"""The machine that a run was measured on, and what shares it."""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gdcore
from available import JAX, SCIKIT_LEARN, installed
from limits import last_level_cache


def describe() -> dict[str, Any]:
    """Processor, threads, caches and versions; the load that others put on it; the date."""
    info = gdcore.build_info()
    return {
        "cpu": cpu_model(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "last_level_cache_bytes": last_level_cache(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "torch_instruction_set": torch.backends.cpu.get_cpu_capability(),
        "numpy": np.__version__,
        "jax": installed_version(JAX),
        "scikit_learn": installed_version(SCIKIT_LEARN),
        "thread_pools": thread_pools(),
        "gdcore": info["version"],
        "gdcore_compiler": info["compiler"],
        "gdcore_instruction_set": info["instruction_sets"]["active"],
        "gdcore_threads": info["threads"],
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def installed_version(peer: str) -> str | None:
    """Of a peer's package, which is not imported for it; None where it is missing."""
    if not installed(peer):
        return None
    return importlib.metadata.version("jax" if peer == JAX else peer)


def cpu_model() -> str:
    """As the kernel names it; on Arm only the architecture is known."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def thread_pools() -> list[dict[str, Any]] | None:
    """The OpenMP and BLAS pools that contenders use, where threadpoolctl is installed."""
    try:
        threadpool_info = importlib.import_module("threadpoolctl").threadpool_info
    except ImportError:
        return None
    kept = ("user_api", "internal_api", "version", "num_threads")
    return [{name: pool.get(name) for name in kept} for pool in threadpool_info()]
