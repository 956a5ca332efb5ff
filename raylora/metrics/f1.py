"""The F1 score on labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from raylora.errors import UserError
from raylora.metrics.base import CorpusMetric, MetricRow, check_choice
from raylora.metrics.core.labels import check_labels, confusion, encode, label_order, read_labels
from raylora.metrics.core.text import normalise

AVERAGES = ("macro", "micro", "weighted")


class F1(CorpusMetric):
    """Harmonic mean of precision and recall, `2 tp / (2 tp + fp + fn)`, of one label or averaged over all.

    A completion that names no label is missing where its label should be and counts for no other. A label that is
    neither answered nor predicted counts 0. The error is bootstrapped.

    Args:
        positive: the label to find, as for MRPC and QQP; without one, the labels are averaged.
        average: `macro` (labels weigh the same), `weighted` (by how often they are the answer) or `micro` (counts are
            added up first).
        labels: the labels there are; without them, those of the answers. See `accuracy`.
    """

    name = "f1"
    summary = "F1 of one label, or its average over labels"
    marks = frozenset({"classes"})

    def __init__(
        self, *, positive: str | None = None, average: str = "macro", labels: Sequence[str] | None = None
    ) -> None:
        check_choice(self.name, "average", average, AVERAGES)
        self.labels = check_labels(self.name, labels)
        self.positive = None if positive is None else normalise(str(positive))
        if self.positive is not None and self.labels is not None and self.positive not in self.labels:
            raise UserError.at(
                "f1.positive",
                f"{positive!r} is none of the labels; choose one of {', '.join(self.labels)}",
                value=positive,
                allowed=self.labels,
            )
        self.average = average

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[tuple[float | str, ...]]:
        return read_labels(outputs, rows, self.labels)

    def estimator(self, rows: Sequence[tuple[Any, ...]]) -> tuple[np.ndarray, Callable[[np.ndarray], float]]:
        counted = set(self.labels or (wanted for wanted, _ in rows))
        if self.positive is not None:
            counted = {self.positive}
        order = label_order(rows, counted)
        kept = np.asarray([label in counted for label in order])
        return encode(rows, order), lambda table: self._value(confusion(table, len(order)), kept)

    def _value(self, counts: np.ndarray, kept: np.ndarray) -> float:
        hits = np.diag(counts)[kept].astype(float)
        answered, predicted = counts.sum(axis=1)[kept], counts.sum(axis=0)[kept]
        if self.average == "micro" and self.positive is None:
            return 2.0 * float(hits.sum()) / max(1.0, float((answered + predicted).sum()))
        scores = 2.0 * hits / np.maximum(1, answered + predicted)
        if self.average == "weighted" and self.positive is None:
            return float(scores @ answered) / max(1.0, float(answered.sum()))
        return float(scores.mean())
