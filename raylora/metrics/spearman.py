"""Spearman's rank correlation."""

from __future__ import annotations

import numpy as np

from raylora.metrics.core.correlation import Correlation


class Spearman(Correlation):
    """Pearson's correlation of ranks, ties at their mean rank.

    Args:
        missing: what a completion without a number counts as; -1 is below STS-B's scale from 0 to 5.
    """

    name = "spearman"
    summary = "Spearman's rank correlation of the completions' last numbers with the answers' (STS-B)"
    marks = frozenset({"numbers"})

    def compared(self, table: np.ndarray) -> np.ndarray:
        from scipy.stats import rankdata

        return rankdata(table, axis=0)
