"""Errors of the losses, which are torch's kinds of error too.

What gdcore refuses is a ValueError or a TypeError. Of the same input torch's own losses raise a
RuntimeError most often; a program that catches either goes on working.
"""

__all__ = ["InputTypeError", "InputValueError", "as_torch_raises"]


class InputValueError(ValueError, RuntimeError):
    """A tensor of a shape, or in a place, that a loss does not take."""


class InputTypeError(TypeError, RuntimeError):
    """An argument of a loss that is no tensor, or one of another dtype."""


_KINDS: dict[type[Exception], type[Exception]] = {
    ValueError: InputValueError,
    TypeError: InputTypeError,
}


def as_torch_raises(error: Exception) -> Exception:
    """A refusal as an error that is of torch's kind as well; any other error as it is."""
    kind = _KINDS.get(type(error))
    return error if kind is None else kind(*error.args).with_traceback(error.__traceback__)
