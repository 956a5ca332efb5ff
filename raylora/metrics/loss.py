"""Cross-entropy of the reference completions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from raylora.metrics.base import CorpusMetric, MetricRow, RowLoss, check_lengths


class Loss(CorpusMetric):
    """Negative log-likelihood of the reference completions: nats per token, over all tokens of all rows.

    Rows weigh by their tokens, so the error is bootstrapped over rows. A row whose loss is not finite counts as `worst`
    for each of its tokens; the value is never more than `worst`.
    """

    name = "loss"
    summary = "cross-entropy of the reference completions, in nats per token; nothing is generated"
    marks = frozenset({"classes", "numbers"})
    mode = "min"
    worst = 20.0
    needs = "loss"

    def score(self, outputs: Sequence[RowLoss], rows: Sequence[MetricRow]) -> list[tuple[float | str, ...]]:
        check_lengths(outputs, rows)
        return [self._row(loss) for loss in outputs]

    def _row(self, loss: RowLoss) -> tuple[float | str, ...]:
        nll = loss.nll if math.isfinite(loss.nll) else self.worst * loss.tokens
        return (float(nll), float(loss.tokens))

    def estimator(self, rows: Sequence[tuple[object, ...]]) -> tuple[np.ndarray, Callable[[np.ndarray], float]]:
        return np.asarray(rows, dtype=float), self._value

    def _value(self, table: np.ndarray) -> float:
        nll, tokens = table.sum(axis=0)
        return min(self.worst, float(nll / tokens)) if tokens else self.worst
