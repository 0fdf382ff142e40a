"""Where the rows of loaders are drawn."""

import contextlib

import torch


def drawn_on_cpu() -> contextlib.AbstractContextManager[object]:
    """As where no default device is set: torch's samplers ask it for numbers, and the CPU's
    generators for drawing them.
    """
    if torch.get_default_device().type == "cpu":
        return contextlib.nullcontext()
    return torch.device("cpu")
