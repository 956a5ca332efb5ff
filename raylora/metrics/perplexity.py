"""Perplexity of the reference completions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from raylora.metrics.base import CorpusMetric, MetricRow, RowLoss, check_lengths

_MOST_NATS = math.log(1e5)


class Perplexity(CorpusMetric):
    """`exp` of the loss in nats per token, over all tokens of all rows; the error is bootstrapped over rows.

    A row whose loss is not finite counts as `worst` for each of its tokens; the value is never more than `worst`.
    """

    name = "perplexity"
    summary = "exp of the cross-entropy of the reference completions, per token; nothing is generated"
    mode = "min"
    worst = 1e5
    needs = "loss"

    def score(self, outputs: Sequence[RowLoss], rows: Sequence[MetricRow]) -> list[tuple[float | str, ...]]:
        check_lengths(outputs, rows)
        return [
            (float(loss.nll if math.isfinite(loss.nll) else _MOST_NATS * loss.tokens), float(loss.tokens))
            for loss in outputs
        ]

    def estimator(self, rows: Sequence[tuple[object, ...]]) -> tuple[np.ndarray, Callable[[np.ndarray], float]]:
        return np.asarray(rows, dtype=float), self._value

    def _value(self, table: np.ndarray) -> float:
        nll, tokens = table.sum(axis=0)
        return min(self.worst, math.exp(min(_MOST_NATS, nll / tokens))) if tokens else self.worst
