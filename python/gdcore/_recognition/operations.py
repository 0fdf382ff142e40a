"""What is asked of an operation at every call, found once."""

from typing import Any

import torch

from .dense import densely, moved
from .rules import rule_of

__all__ = ["Operation"]


_FILLS = ("empty", "zeros", "ones", "full")
_BY_SHAPE = {f"new_{fill}" for fill in _FILLS} | {f"{fill}_like" for fill in _FILLS}
"""Operations that look at no value of their argument."""


class Operation:
    """An operation's effects, by its schema and tags, and its rule."""

    def __init__(self, func: Any) -> None:
        schema = func._schema
        self.name = schema.name.removeprefix("aten::")
        tags = func.tags
        self.random = torch.Tag.nondeterministic_seeded in tags
        self.reads = torch.Tag.data_dependent_output in tags
        self.sized_by_value = torch.Tag.dynamic_output_shape in tags and self.name != "index"
        self.written = [
            (i, argument.name)
            for i, argument in enumerate(schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        self.is_view = (
            not self.written
            and self.name != "lift_fresh"
            and any(result.alias_info is not None for result in schema.returns)
        )
        self.by_shape = self.name in _BY_SHAPE
        in_place = self.name.endswith("_") and [i for i, _ in self.written] == [0]
        self.in_place = in_place
        self.value_name = self.name.rstrip("_") if in_place else self.name
        self.rule = rule_of(self.value_name)
        self.runs_itself = self.rule in (moved, densely)
        """Whether the rule is to run the operation, on other tensors."""
