"""Exact match."""

from __future__ import annotations

from collections.abc import Sequence

from raylora.metrics.base import Metric, MetricRow, check_lengths
from raylora.metrics.core.references import references_of
from raylora.metrics.core.text import normalise


class Exact(Metric):
    """Share of completions that equal an accepted answer or the whole reference response.

    Both are normalised: case, spacing, and the punctuation, quotes and Markdown emphasis around them do not count.
    """

    name = "exact"
    summary = "the completion is the answer or the whole reference response (case, spacing, outer punctuation aside)"
    marks = frozenset({"classes"})
    key = "accuracy"

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[float]:
        check_lengths(outputs, rows)
        return [float(_equal(text, row)) for text, row in zip(outputs, rows, strict=True)]


def _equal(completion: str, row: MetricRow) -> bool:
    return normalise(completion) in {normalise(text) for text in (*references_of(row), row["response"])}
