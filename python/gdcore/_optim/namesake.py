"""What torch's own optimizers do for those here: begin a group, and step."""

import inspect
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

Group = dict[str, Any]


def stand_in(optimizer: Any, groups: list[Group], **attributes: Any) -> Any:
    """The namesake with this optimizer's state, and with some of its groups."""
    made = object.__new__(optimizer._namesake)
    made.__dict__.update(optimizer.__dict__, grad_scale=None, found_inf=None)
    made.__dict__.update(attributes, param_groups=groups)
    return made


def begin(made: Any, group: Group) -> None:
    """What a namesake does with a group before it steps; states appear."""
    lists = len(inspect.signature(made._init_group).parameters) - 1
    made._init_group(group, *([] for _ in range(lists)))


def fresh_states(optimizer: Any, group: Group) -> dict[Tensor, dict[str, Any]]:
    """What the namesake gives as states to parameters at their first step."""
    made = stand_in(optimizer, [group], state=defaultdict(dict))
    with torch.device("cpu"):  # where steps are counted, whatever the default device
        begin(made, group)
    return dict(made.state)


def step(made: Any) -> None:
    """A namesake's step without what torch does around it."""
    function = type(made).step
    while hasattr(function, "hooked"):
        function = function.__wrapped__
    function(made)
