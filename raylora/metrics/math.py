"""Mathematical answers, compared by meaning."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from raylora.errors import UserError
from raylora.metrics.base import Metric, MetricRow, check_lengths
from raylora.metrics.core.answers import (
    based_number,
    chosen_letter,
    final_answer,
    half_of_day,
    is_point,
    is_set,
    is_words,
    plain_number,
    spelt,
    squeezed,
    stated_answer,
)
from raylora.metrics.core.math_worker import MathWorker
from raylora.metrics.core.missing import library

# An answer is short; what is longer is a text that was taken for one.
_LONGEST = 1000


class Math(Metric):
    r"""Share of completions whose final answer means the same as the row's: LaTeX, numbers, sets, intervals, matrices.

    A completion's answer is its last `\boxed{...}`, else what follows its last `answer is`, else its last formula,
    else its last line. The row's answer may be a whole solution too, if it boxes its answer or says that it is one.
    Spelling is made alike first (units, spaces and degree signs do not count, and of a percentage the number or its
    hundredth does); words are compared as words, numbers by value, and the rest by math-verify, in a process of its
    own. A comparison that is not done in time counts as wrong.

    Args:
        timeout: processor time for one comparison, in seconds.
    """

    name = "math"
    summary = "the final answer means the same: LaTeX and numeric equivalence by math-verify"
    key = "accuracy"

    def __init__(self, *, timeout: float = 5.0) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0.0 < timeout <= 600.0:
            raise UserError.at(
                "math.timeout", f"{timeout!r} is not allowed; give seconds, more than 0 and 600 at most", value=timeout
            )
        self.timeout = timeout
        if importlib.util.find_spec("math_verify") is None:
            library("math_verify", self.name)
        self._worker = MathWorker(float(timeout))

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[float]:
        check_lengths(outputs, rows)
        return [float(self.equal(row["answer"], text)) for text, row in zip(outputs, rows, strict=True)]

    def equal(self, answer: str, given: str) -> bool:
        """Whether the final answers of two texts mean the same."""
        texts = stated_answer(answer), final_answer(given)
        wanted, found = map(spelt, texts)
        if not wanted or not any(map(str.isalnum, found)) or len(found) > _LONGEST:
            return squeezed(wanted) == squeezed(found) and bool(wanted)
        halves = set(map(half_of_day, texts)) - {""}
        if len(halves) > 1:
            return False
        if squeezed(wanted) == squeezed(found) or squeezed(wanted) == (chosen_letter(found).casefold() or None):
            return True
        if is_words(wanted) or is_words(found) or (is_point(wanted) and is_set(found)):
            return False
        if self._same(wanted, found):
            return True
        # Of a percentage the number counts, or else its hundredth, where the other has no such sign.
        signs = ["%" in text for text in texts]
        if signs == [True, False]:
            return self._same(rf"\frac{{{wanted}}}{{100}}", found)
        return signs == [False, True] and self._same(wanted, rf"\frac{{{found}}}{{100}}")

    def _same(self, wanted: str, found: str) -> bool:
        for read in (plain_number, based_number):
            values = read(wanted), read(found)
            if values[0] is not None and values[1] is not None:
                return values[0] == values[1]
        return self._worker.equal(wanted, found)
