"""Pearson's correlation."""

from __future__ import annotations

from raylora.metrics.core.correlation import Correlation


class Pearson(Correlation):
    """Pearson's correlation of numbers.

    Args:
        missing: what a completion without a number counts as; -1 is below STS-B's scale from 0 to 5.
    """

    name = "pearson"
    summary = "Pearson's correlation of the completions' last numbers with the answers' (STS-B)"
    marks = frozenset({"numbers"})
