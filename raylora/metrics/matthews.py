"""Matthews' correlation coefficient on labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from raylora.metrics.base import CorpusMetric, MetricRow
from raylora.metrics.core.labels import check_labels, confusion, encode, label_order, read_labels


class Matthews(CorpusMetric):
    """Correlation of answers and predictions, from -1 to 1, for two or more labels (Gorodkin, 2004); CoLA's metric.

    `(c s - t . p) / sqrt((s^2 - p . p) (s^2 - t . t))` with `s` rows, `c` of them right, and `t` and `p` how often each
    label is the answer and the prediction. 0 where all answers or all predictions are the same. Completions that name
    no label are a label of their own. The error is bootstrapped.

    Args:
        labels: the labels there are: see `accuracy`.
    """

    name = "matthews"
    summary = "Matthews' correlation of labels, from -1 to 1 (CoLA)"
    marks = frozenset({"classes"})
    worst = -1.0

    def __init__(self, *, labels: Sequence[str] | None = None) -> None:
        self.labels = check_labels(self.name, labels)

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[tuple[float | str, ...]]:
        return read_labels(outputs, rows, self.labels)

    def estimator(self, rows: Sequence[tuple[Any, ...]]) -> tuple[np.ndarray, Callable[[np.ndarray], float]]:
        order = label_order(rows)
        return encode(rows, order), lambda table: _coefficient(confusion(table, len(order)))


def _coefficient(counts: np.ndarray) -> float:
    counts = counts.astype(float)
    total, hits = counts.sum(), np.trace(counts)
    answered, predicted = counts.sum(axis=1), counts.sum(axis=0)
    spread = (total**2 - predicted @ predicted) * (total**2 - answered @ answered)
    return float((hits * total - answered @ predicted) / math.sqrt(spread)) if spread > 0 else 0.0
