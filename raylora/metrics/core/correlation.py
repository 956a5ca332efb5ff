"""What the metrics of correlation share: numbers in, a bootstrapped coefficient out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from raylora.errors import UserError
from raylora.metrics.base import CorpusMetric, MetricRow, check_lengths
from raylora.metrics.core.numbers import last_number


class Correlation(CorpusMetric):
    """Correlation of the last number of each completion with that of the answer; -1 to 1, 0 where one side is constant.

    Args:
        missing: what a completion without a number counts as; -1 is below STS-B's scale from 0 to 5.
    """

    worst = -1.0

    def __init__(self, *, missing: float = -1.0) -> None:
        if isinstance(missing, bool) or not isinstance(missing, int | float) or not math.isfinite(missing):
            raise UserError.at(
                f"{self.name}.missing", f"{missing!r} is not allowed; give a finite number", value=missing
            )
        self.missing = float(missing)

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[tuple[float | str, ...]]:
        check_lengths(outputs, rows)
        return [(self._answer(row), self._number(text)) for text, row in zip(outputs, rows, strict=True)]

    def _answer(self, row: MetricRow) -> float:
        number = last_number(row["answer"])
        if number is None or not math.isfinite(float(number)):
            raise UserError.at(
                self.name,
                f"the answer {row['answer']!r} is no number; use a metric of labels or text",
                value=row["answer"],
            )
        return float(number)

    def _number(self, text: str) -> float:
        number = last_number(text)
        return float(number) if number is not None and abs(number) < 1e100 else self.missing

    def estimator(self, rows: Sequence[tuple[object, ...]]) -> tuple[np.ndarray, Callable[[np.ndarray], float]]:
        return np.asarray(rows, dtype=float), lambda table: correlation(*self.compared(table).T)

    def compared(self, table: np.ndarray) -> np.ndarray:
        """What is correlated, of answers and numbers `(n, 2)`."""
        return table


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of `(n,)` and `(n,)`; 0 where one of them is constant."""
    a, b = first - first.mean(), second - second.mean()
    scale = float(np.abs(a).max() * np.abs(b).max())
    if not scale:
        return 0.0
    # Scaled first: squares of large numbers overflow.
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    return float(np.clip(a @ b / math.sqrt((a @ a) * (b @ b)), -1.0, 1.0))
