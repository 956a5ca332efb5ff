"""chrF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from raylora.metrics.base import CorpusMetric, MetricRow, check_count, check_lengths
from raylora.metrics.core.missing import library
from raylora.metrics.core.references import references_of


class Chrf(CorpusMetric):
    """Corpus chrF (Popović, 2015) by sacrebleu, 0 to 100: F-score of character n-grams; the error is bootstrapped.

    A row's references are the texts under `references` in its metadata, or its answer; the best of them counts.

    Args:
        word_order: longest n-gram of words; 0 is chrF, 2 is chrF++.
    """

    name = "chrf"
    summary = "F-score of character n-grams by sacrebleu (chrF, chrF++), 0 to 100"

    def __init__(self, *, word_order: int = 0) -> None:
        check_count(self.name, "word_order", word_order, least=0)
        self.word_order = word_order
        self._scorer()

    def _scorer(self) -> Any:
        return library("sacrebleu.metrics", self.name).CHRF(word_order=self.word_order)

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[tuple[float | str, ...]]:
        """Of each row and order of n-gram: those of the completion, of the reference, and of both, `(n, 3 orders)`."""
        check_lengths(outputs, rows)
        scorer = self._scorer()
        return [_counts(scorer, text, references_of(row)) for text, row in zip(outputs, rows, strict=True)]

    def estimator(self, rows: Sequence[tuple[object, ...]]) -> tuple[np.ndarray, Callable[[np.ndarray], float]]:
        scorer = self._scorer()
        # sacrebleu has its own bootstrap on these sums, and no public name for them.
        return np.asarray(rows, dtype=float), lambda table: float(
            scorer._compute_score_from_stats(table.sum(axis=0).astype(int).tolist()).score
        )


def _counts(scorer: Any, text: str, references: list[str]) -> tuple[float | str, ...]:
    (counts,) = scorer._extract_corpus_statistics([text], [[reference] for reference in references])
    return tuple(map(float, counts))
