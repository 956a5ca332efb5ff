"""The error of a configuration that a variant cannot be had with."""

from __future__ import annotations


class OptionError(ValueError):
    """A variant cannot be had with a part of a configuration; the message is one line with the remedy.

    Attributes:
        field: the part, as a recipe has it: `rank`, `extra.r_min`.
        value: what it is set to; None where the message says all there is.
        allowed: what would be taken instead: values, or words.

    All survive pickling, and with it a remote call.
    """

    def __init__(self, message: str, *, field: str = "", value: object = None, allowed: object = None) -> None:
        super().__init__(message)
        self.field, self.value, self.allowed = field, value, allowed
