"""Means, their errors (the one meaning of `±` in tables and summaries) and rank correlation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 500
SEED = 0


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error; None for the error of a single value."""
    return statistics.fmean(values), standard_error(values) if len(values) > 1 else None


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of these values; NaN for fewer than two, or where one is not finite."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan
    return math.sqrt(statistics.pvariance(values) / (len(values) - 1))


def bootstrap_error(
    table: np.ndarray, value: Callable[[np.ndarray], float], *, resamples: int = RESAMPLES, seed: int = SEED
) -> float | None:
    """Standard error of any function of rows by the bootstrap (Efron, 1979); None for fewer than two rows.

    It is the standard deviation of `value` over resamples of the rows, drawn with replacement. The same rows in the
    same order give the same error; 500 resamples know it to about 3 % of itself.

    Args:
        table: what is known of each row, `(n, k)`.
        value: what is estimated from a table of `n` rows; finite.
        resamples: how many; at least 2.
        seed: of the draws.
    """
    count = len(table)
    if count < 2:
        return None
    draw = np.random.default_rng(seed)
    return float(np.std([value(table[draw.integers(0, count, count)]) for _ in range(resamples)], ddof=1))


def bootstrap_interval(
    table: np.ndarray,
    value: Callable[[np.ndarray], float],
    *,
    level: float = 0.95,
    resamples: int = 4 * RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float] | None:
    """Where any function of rows lies with probability `level`, by the bootstrap's percentiles (Efron, 1979).

    Resamples on which it is NaN are left out. None for fewer than three rows, and where more than half of the resamples
    are left out.

    Args:
        table, value, resamples, seed: as for `bootstrap_error`, but `value` may be NaN.
    """
    count = len(table)
    if count < 3:
        return None
    draw = np.random.default_rng(seed)
    found = np.array([value(table[draw.integers(0, count, count)]) for _ in range(resamples)])
    found = found[~np.isnan(found)]
    if 2 * len(found) <= resamples:
        return None
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def pearson(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Pearson's correlation; NaN where one side is constant."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def spearman(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where one side is constant."""
    return pearson(_ranks(first), _ranks(second))


def _ranks(values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    return np.array([((array < x).sum() + (array <= x).sum() + 1) / 2 for x in array])
