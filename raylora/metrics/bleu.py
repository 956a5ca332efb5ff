"""BLEU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from raylora.metrics.base import CorpusMetric, MetricRow, check_choice, check_count, check_flag, check_lengths
from raylora.metrics.core.missing import library
from raylora.metrics.core.references import references_of

TOKENISERS = ("13a", "intl", "char", "zh", "none")


class Bleu(CorpusMetric):
    """Corpus BLEU (Papineni et al., 2002) by sacrebleu, 0 to 100; the error is bootstrapped over rows.

    A row's references are the texts under `references` in its metadata, or its answer.

    Args:
        order: longest n-gram; 4 is BLEU-4.
        lowercase: whether case counts not.
        tokenise: sacrebleu's tokeniser: `13a`, `intl`, `char`, `zh` or `none`.
    """

    name = "bleu"
    summary = "corpus BLEU by sacrebleu, 0 to 100"

    def __init__(self, *, order: int = 4, lowercase: bool = False, tokenise: str = "13a") -> None:
        check_count(self.name, "order", order)
        check_flag(self.name, "lowercase", lowercase)
        check_choice(self.name, "tokenise", tokenise, TOKENISERS)
        self.order, self.lowercase, self.tokenise = order, lowercase, tokenise
        self._scorer()

    def _scorer(self) -> Any:
        scorers = library("sacrebleu.metrics", self.name)
        return scorers.BLEU(max_ngram_order=self.order, lowercase=self.lowercase, tokenize=self.tokenise)

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[tuple[float | str, ...]]:
        """Of each row: length, length of the closest reference, and the n-grams that are right and that there are."""
        check_lengths(outputs, rows)
        scorer = self._scorer()
        return [_counts(scorer, text, references_of(row)) for text, row in zip(outputs, rows, strict=True)]

    def estimator(self, rows: Sequence[tuple[object, ...]]) -> tuple[np.ndarray, Callable[[np.ndarray], float]]:
        bleu = library("sacrebleu.metrics", self.name).BLEU

        def value(table: np.ndarray) -> float:
            sums = table.sum(axis=0).astype(int).tolist()
            right, there = sums[2 : 2 + self.order], sums[2 + self.order :]
            return float(bleu.compute_bleu(right, there, sums[0], sums[1], max_ngram_order=self.order).score)

        return np.asarray(rows, dtype=float), value


def _counts(scorer: Any, text: str, references: list[str]) -> tuple[float | str, ...]:
    counted = scorer.corpus_score([text], [[reference] for reference in references])
    return tuple(map(float, (counted.sys_len, counted.ref_len, *counted.counts, *counted.totals)))
