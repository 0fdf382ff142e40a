"""What this build of gdcore is, and what it found on this machine."""

from importlib.metadata import version
from typing import Any

import torch

from . import _ops

__version__ = version("gdcore")


def build_info() -> dict[str, Any]:
    """Describe the build and the machine, for bug reports and for choosing an instruction set.

    Returns:
        A dict with ``version``, ``compiler``, ``instruction_sets`` (``built``, ``available`` is
        what this processor executes, ``active`` what is used, the widest unless the environment
        variable ``GDCORE_ISA`` names another), ``threads`` (``torch.get_num_threads()``, which
        gdcore follows), ``cuda`` (``built``, ``device``: its name or None; where it is built also
        ``architectures``, ``runtime``, and ``message``: what the runtime says where it finds no
        device, or that the build has nothing for the one there is) and ``torch``.

    Example:
        >>> info = gdcore.build_info()
        >>> info["instruction_sets"]["built"][0]
        'baseline'
    """
    return {
        "version": __version__,
        "compiler": _ops.COMPILER,
        "instruction_sets": {
            "built": _ops.built_instruction_sets(),
            "available": _ops.available_instruction_sets(),
            "active": _ops.active_instruction_set(),
        },
        "threads": torch.get_num_threads(),
        "cuda": _cuda(),
        "torch": torch.__version__,
    }


def _cuda() -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if _ops.cuda is None:
        return {"built": False, "device": device}
    _, message = _ops.cuda.devices()
    if device is not None and not message:
        message = _misfit(_ops.cuda.ARCHITECTURES, torch.cuda.get_device_capability())
    return {
        "built": True,
        "device": device,
        "architectures": _ops.cuda.ARCHITECTURES,
        "runtime": _ops.cuda.RUNTIME,
        "message": message or None,
    }


def _misfit(architectures: str, capability: tuple[int, int]) -> str:
    """Why code for these, as CMake names them, does not run on such a device; empty where it does.

    Machine code (``90-real``) runs on later devices of the same major number, PTX (``90-virtual``)
    on all later ones; ``90`` is both.
    """
    for name in architectures.split(", "):
        number, _, kind = name.partition("-")
        if not number.isdecimal():
            return ""  # native or all, say: as the builder wanted it
        built = divmod(int(number), 10)
        if built <= capability and (kind != "real" or built[0] == capability[0]):
            return ""
    found = ".".join(map(str, capability))
    return (
        f"built for {architectures}, and nothing of that runs on compute capability {found}: build "
        "with CMAKE_CUDA_ARCHITECTURES=native, or with GDCORE_CUDA=OFF"
    )
