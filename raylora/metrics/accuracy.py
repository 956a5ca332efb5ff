"""Accuracy on labels."""

from __future__ import annotations

from collections.abc import Sequence

from raylora.metrics.base import Metric, MetricRow
from raylora.metrics.core.labels import check_labels, read_labels


class Accuracy(Metric):
    """Share of completions that mean the answer's label.

    Args:
        labels: the labels there are. Where they are given, a completion may name its label within a sentence; one that
            names none or several is wrong. Without them it must be the label alone.
    """

    name = "accuracy"
    summary = "share of the right labels"
    marks = frozenset({"classes"})
    key = "accuracy"

    def __init__(self, *, labels: Sequence[str] | None = None) -> None:
        self.labels = check_labels(self.name, labels)

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[float]:
        return [float(wanted == found) for wanted, found in read_labels(outputs, rows, self.labels)]
