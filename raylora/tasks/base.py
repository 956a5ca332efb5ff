"""What a task is: rows to learn from, and a score for what the model then writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from raylora.data.rows import Source
from raylora.errors import UserError


class Task(ABC):
    """One family of rows with its metric. Instances are small, pickle, and travel to the actors that score.

    Attributes:
        name: what the registry and the reports call it, such as `gsm8k` or `reasoning_gym/chain_sum`.
        metric: the name under which a trial reports the mean score.
        mode: `max` or `min`, the better end of the metric.
        worst: finite value of the metric that a diverged trial is given.
        max_new_tokens: longest completion worth generating, in tokens.
        train_rows, test_rows: bound on a split, or None for all of it; a longer split is sampled, by seed.
    """

    name: str = ""
    metric: str = "accuracy"
    mode: str = "max"
    worst: float = 0.0
    max_new_tokens: int = 64
    train_rows: int | None = None
    test_rows: int | None = None

    @abstractmethod
    def splits(self) -> dict[str, Source]:
        """Raw rows by split: `train` always, `validation` and `test` where the source has them.

        Nothing is read until a split's callable is called, so a test split that nobody asks for stays unread.
        A row holds `prompt`, `response` (what to train on), `answer` (what is scored against), all str, and
        `metadata` (a JSON string or a JSON-able mapping; whatever `score` needs besides).
        """

    @abstractmethod
    def score(self, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[float]:
        """One score in [0, 1] per completion.

        Args:
            completions: decoded text after the prompt, without special tokens, `(n,)`.
            rows: the rows they answer, `(n,)`, with at least `response`, `answer` and `metadata` (JSON
                string).
        """


def check_lengths(completions: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError unless there is exactly one row per completion."""
    if len(completions) != len(rows):
        raise ValueError(f"completions: {len(completions)} for {len(rows)} rows; give one completion per row")


def check_positive(field: str, value: int | None) -> None:
    """Raise UserError unless `value` is None or a whole number of at least 1."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError(f"task.{field}: {value!r} is not a positive whole number; give 1 or more")
