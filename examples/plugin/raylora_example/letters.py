"""A metric: how many letters are where they belong."""

from __future__ import annotations

from collections.abc import Sequence

from raylora.metrics import Metric
from raylora.metrics.base import MetricRow, check_lengths


class Letters(Metric):
    """Share of the answer's letters that stand at their places in the completion."""

    name = "letters"
    summary = "share of the answer's letters that stand at their places"

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[float]:
        check_lengths(outputs, rows)
        return [_share(text.strip(), row["answer"]) for text, row in zip(outputs, rows, strict=True)]


def _share(text: str, answer: str) -> float:
    # A text that is too short has nothing at the places behind its end; one that is too long has done no better.
    return sum(a == b for a, b in zip(text, answer, strict=False)) / max(len(text), len(answer), 1)
