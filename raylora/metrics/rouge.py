"""ROUGE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raylora.metrics.base import (
    Estimate,
    Metric,
    MetricRow,
    Value,
    check_choice,
    check_flag,
    check_lengths,
    parts_estimate,
)
from raylora.metrics.core.missing import library
from raylora.metrics.core.references import references_of

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


class Rouge(Metric):
    """ROUGE (Lin, 2004) by rouge-score: F-measure of n-grams or the longest common subsequence, 0 to 1, mean of rows.

    A row's references are the texts under `references` in its metadata, or its answer; the best of them counts. All
    kinds are computed and come as parts; `kind` is the value.

    Args:
        kind: `rouge1`, `rouge2`, `rougeL` or `rougeLsum`.
        stemmer: whether English words count by their stems.
    """

    name = "rouge"
    summary = "ROUGE-1, -2, -L and -Lsum by rouge-score: F-measure, 0 to 1, mean of rows"

    def __init__(self, *, kind: str = "rougeL", stemmer: bool = False) -> None:
        check_choice(self.name, "kind", kind, KINDS)
        check_flag(self.name, "stemmer", stemmer)
        self.kind, self.stemmer = kind, stemmer
        self._scorer()

    def _scorer(self) -> Any:
        return library("rouge_score.rouge_scorer", self.name).RougeScorer(list(KINDS), use_stemmer=self.stemmer)

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[tuple[float | str, ...]]:
        """F-measure of each kind, in the order of `KINDS`, `(n, 4)`."""
        check_lengths(outputs, rows)
        scorer = self._scorer()
        return [_best(scorer, text, references_of(row)) for text, row in zip(outputs, rows, strict=True)]

    def summarise(self, values: Sequence[Value]) -> Estimate:
        return parts_estimate(values, KINDS, self.kind)


def _best(scorer: Any, text: str, references: list[str]) -> tuple[float | str, ...]:
    found = [scorer.score(reference, text) for reference in references]
    return tuple(max(float(one[kind].fmeasure) for one in found) for kind in KINDS)
