"""Containment."""

from __future__ import annotations

import re
from collections.abc import Sequence

from raylora.metrics.base import Metric, MetricRow, check_lengths
from raylora.metrics.core.references import references_of
from raylora.metrics.core.text import normalise


class Contains(Metric):
    """Share of completions in which an accepted answer stands as whole words, both normalised as by `exact`.

    An empty answer is in no completion.
    """

    name = "contains"
    summary = "the answer stands somewhere in the completion, as whole words"
    key = "accuracy"

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[float]:
        check_lengths(outputs, rows)
        return [
            float(any(_within(text, answer) for answer in references_of(row)))
            for text, row in zip(outputs, rows, strict=True)
        ]


def _within(completion: str, answer: str) -> bool:
    wanted = normalise(answer)
    return bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", normalise(completion)) is not None
