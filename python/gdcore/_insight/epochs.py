"""How many epochs a descent in closed form takes to come close to its optimum."""

from __future__ import annotations

import math

import torch

from .descent import Descents

__all__ = ["epochs_to"]

_POINTS = 4096
_NEVER = 2**45
"""Epochs beyond which the rounding of a rate near 1 would show."""


def epochs_to(path: Descents, tolerance: float) -> float:
    """The first epoch whose loss is at most that fraction of the first's, or infinity.

    The first 4 096 epochs one by one, then in strides that grow with the epochs so far; the stride
    in which the goal is passed is searched again.
    """
    goal = tolerance * float(path.losses(1)[0, 0])
    first, stride = 0, 1
    while first < _NEVER:
        losses = path.losses(_POINTS, first, stride)[:, 0]
        below = torch.nonzero(losses <= goal)
        if len(below):
            return _refined(path, goal, first, int(below[0]), stride)
        if losses[-1].isinf() or bool((losses == losses[0]).all()):
            break
        first, stride = first + _POINTS * stride, max(first // _POINTS, 1)
    return math.inf


def _refined(path: Descents, goal: float, first: int, index: int, stride: int) -> int:
    """The first epoch below the goal in the gap before a point that is."""
    while stride > 1 and index > 0:
        first, gap = first + (index - 1) * stride, stride
        stride = max(gap // _POINTS, 1)
        losses = path.losses(-(-gap // stride) + 1, first, stride)[:, 0]
        below = torch.nonzero(losses <= goal)
        if not len(below):  # rounding at the very goal
            return first + gap
        index = int(below[0])
    return first + index * stride
