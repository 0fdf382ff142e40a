"""The programs of the study notes as lessons: by hand, by autograd, and fused.

``python -m gdcore lessons`` runs them all and compares each with what its seed prints.
"""

from .command import add_arguments, run
from .registry import LESSONS

__all__ = ["LESSONS", "add_arguments", "run"]
