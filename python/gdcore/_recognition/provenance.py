"""What a forward does with its input before parameters meet it."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from .operations import Operation

__all__ = ["Provenance", "memory_of"]

_COPIES = """
    clone _unsafe_view _reshape_copy cat stack copy _to_copy repeat flip roll constant_pad_nd neg
"""
_MOVES = frozenset(_COPIES.split())
"""Operations whose results are numbers of their arguments, in other places; views are, too."""
_OF_THE_FIRST = frozenset(("mul", "div", "index", "index_select"))
"""The same where only the first argument comes from the input."""


def memory_of(tensor: Tensor) -> int:
    memory: int = tensor.untyped_storage()._cdata
    return memory


class Provenance:
    """Follows the input through operations that no parameter takes part in.

    Attributes:
        read: whether Python saw values of it, or of what was made from it.
        computed: whether more was done to it than moving its numbers and multiplying them by
            something else. Its features may then be other functions of other values, however many
            values they have been compared at.
    """

    def __init__(self, xs: Sequence[Tensor]) -> None:
        self.read = self.computed = False
        self._memories = {memory_of(x) for x in xs}

    def holds(self, tensor: Tensor) -> bool:
        return memory_of(tensor) in self._memories

    def follow(
        self, operation: Operation, args: Sequence[Any], given: Sequence[Tensor], labelled: bool
    ) -> bool:
        """Whether the results of an operation are made from the input."""
        touched = [tensor for tensor in given if self.holds(tensor)]
        if not touched:
            return False
        self.read |= operation.reads or operation.sized_by_value
        if labelled or operation.by_shape:
            return False
        self.computed |= not _moved(operation, args, touched)
        return True

    def made(self, results: Iterable[Tensor], dtypes: set[Any]) -> None:
        """Results that come from the input, and the dtypes of what they were made from."""
        for result in results:
            self._memories.add(memory_of(result))
            self.computed |= result.dtype not in dtypes


def _moved(operation: Operation, args: Sequence[Any], touched: Sequence[Tensor]) -> bool:
    if operation.value_name in _OF_THE_FIRST:
        return len(touched) == 1 and args[0] is touched[0]
    return operation.is_view or operation.value_name in _MOVES
