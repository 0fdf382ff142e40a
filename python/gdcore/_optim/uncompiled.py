"""What torch.compile leaves a graph for. As this imports TorchDynamo, it is imported only then."""

from collections.abc import Callable

import torch


@torch.compiler.disable  # type: ignore[untyped-decorator]
def run(function: Callable[[], None]) -> None:
    """Call the function as outside of ``torch.compile``."""
    function()
