"""chrF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raylora.metrics.base import Metric, MetricRow, check_count, check_lengths
from raylora.metrics.core.missing import library
from raylora.metrics.core.references import references_of


class Chrf(Metric):
    """chrF (Popović, 2015) by sacrebleu, 0 to 100: F-score of character n-grams, the mean of all rows' own scores.

    A row's references are the texts under `references` in its metadata, or its answer; the best of them counts.

    Args:
        word_order: longest n-gram of words; 0 is chrF, 2 is chrF++.
    """

    name = "chrf"
    summary = "F-score of character n-grams by sacrebleu (chrF, chrF++), 0 to 100, mean of rows"

    def __init__(self, *, word_order: int = 0) -> None:
        check_count(self.name, "word_order", word_order, least=0)
        self.word_order = word_order
        self._scorer()

    def _scorer(self) -> Any:
        return library("sacrebleu.metrics", self.name).CHRF(word_order=self.word_order)

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[float]:
        check_lengths(outputs, rows)
        scorer = self._scorer()
        return [
            float(scorer.sentence_score(text, references_of(row)).score)
            for text, row in zip(outputs, rows, strict=True)
        ]
