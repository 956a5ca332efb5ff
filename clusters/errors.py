"""The error that a user can act on, as this package raises it: packages below raylora do not import it."""

from __future__ import annotations


class ClusterError(ValueError):
    """What was asked of a cluster cannot be done.

    The message is one line with the field, the value and the remedy.

    Attributes:
        field: dotted name of what is wrong; "" where it is no single field.
        value: what it was set to; None where the message says all there is.
        allowed: what would be taken instead: values, or words.

    All survive pickling, and with it a remote call.
    """

    def __init__(self, message: str, *, field: str = "", value: object = None, allowed: object = None) -> None:
        super().__init__(message)
        self.field, self.value, self.allowed = field, value, allowed
