"""The error that a user can act on, as this package raises it: packages below raylora do not import it."""

from __future__ import annotations


class ClusterError(ValueError):
    """What was asked of a cluster cannot be done. The message is one line with the field, the value and the remedy."""
