"""The error that a user can act on."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user asked for cannot be done.

    The message is one line that names the field, the value and the remedy; the command line prints it as it
    is, without a traceback.
    """
