"""Gradient descent in lessons: each a small program, by hand, by autograd, and fused.

The lessons are the programs of five study notes on gradient descent with PyTorch, their seeds,
numbered 000 to 004. ``golden.json`` holds the tables that the seeds print, and
``python -m gdcore lessons`` runs every version of every program and compares it with them.
"""

from .command import add_arguments, run
from .registry import LESSONS

__all__ = ["LESSONS", "add_arguments", "run"]
