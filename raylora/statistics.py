"""Means, their errors (the one meaning of `±` in tables and summaries) and rank correlation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error; None for the error of a single value."""
    return statistics.fmean(values), standard_error(values) if len(values) > 1 else None


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of these values; NaN for fewer than two, or where one is not finite."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values) / math.sqrt(len(values))


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where one side is constant."""
    a, b = _ranks(first), _ranks(second)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    return np.array([((array < x).sum() + (array <= x).sum() + 1) / 2 for x in array])
