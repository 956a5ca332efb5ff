"""A pattern that completions match."""

from __future__ import annotations

import re
from collections.abc import Sequence

import regex

from raylora.errors import UserError
from raylora.metrics.base import Metric, MetricRow, check_flag, check_lengths
from raylora.spec.text import short

_SECONDS = 1.0


class Regex(Metric):
    """Share of completions that a regular expression matches, or whose match is the answer.

    The pattern is one of Python's, searched for anywhere (`^` and `$` bind it; `(?m)`, `(?i)` and `(?s)` are flags). In
    `{answer}` the row's answer is put, taken literally. A match that takes longer than a second is none.

    Args:
        pattern: the regular expression.
        compare: whether what the first group matches, or else the whole match, must equal the answer, both without the
            space around them.
        full: whether the pattern must match the whole completion.
    """

    name = "regex"
    summary = "the completion matches a regular expression, or what it matches is the answer"
    main = "pattern"

    def __init__(self, *, pattern: str, compare: bool = False, full: bool = False) -> None:
        check_flag(self.name, "compare", compare)
        check_flag(self.name, "full", full)
        if not isinstance(pattern, str):
            raise UserError.at("regex.pattern", f"{pattern!r} is not allowed; give a regular expression", value=pattern)
        self.pattern, self.compare, self.full = pattern, compare, full
        self._compiled("a")

    def _compiled(self, answer: str) -> regex.Pattern[str]:
        try:
            return regex.compile(self.pattern.replace("{answer}", re.escape(answer)))
        except regex.error as error:
            filled = f", with {short(answer)} for {{answer}}" if "{answer}" in self.pattern else ""
            raise UserError.at(
                "regex.pattern", f"{self.pattern!r} is no regular expression{filled}: {error}", value=self.pattern
            ) from error

    def score(self, outputs: Sequence[str], rows: Sequence[MetricRow]) -> list[float]:
        check_lengths(outputs, rows)
        return [float(self._matches(text, row["answer"])) for text, row in zip(outputs, rows, strict=True)]

    def _matches(self, text: str, answer: str) -> bool:
        compiled = self._compiled(answer)
        try:
            found = (compiled.fullmatch if self.full else compiled.search)(text, timeout=_SECONDS)
        except TimeoutError:
            return False
        if found is None or not self.compare:
            return found is not None
        return (found.group(1 if compiled.groups else 0) or "").strip() == answer.strip()
