"""A task: words to write backwards."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from raylora.data.rows import Row, Source
from raylora.metrics import make_metric
from raylora.tasks import Task
from raylora.tasks.base import check_positive


class BackwardsTask(Task):
    """Words of random letters; right is the word backwards, letter by letter.

    Args:
        letters: length of the words.
        train_rows, test_rows: words per split; none occurs twice.
        seed: of the words.
        max_new_tokens: longest completion to generate, in tokens.

    Raises:
        UserError: a number that is not above 0.
    """

    name = "backwards"
    summary = "words to write backwards"
    metric = "letters"

    def __init__(
        self,
        *,
        letters: int = 4,
        train_rows: int = 200,
        test_rows: int = 50,
        seed: int = 0,
        max_new_tokens: int = 8,
    ) -> None:
        for field in ("letters", "train_rows", "test_rows", "max_new_tokens"):
            check_positive(field, locals()[field])
        self.letters, self.seed, self.max_new_tokens = letters, seed, max_new_tokens
        self.train_rows: int = train_rows
        self.test_rows: int = test_rows
        self._metric = make_metric(self.metric)

    def splits(self) -> dict[str, Source]:
        return {"train": partial(self._rows, "train"), "test": partial(self._rows, "test")}

    def _rows(self, split: str) -> list[Row]:
        draw = random.Random(self.seed)
        words: dict[str, None] = {}
        while len(words) < self.train_rows + self.test_rows:
            words["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=self.letters))] = None
        chosen = list(words)[: self.train_rows] if split == "train" else list(words)[self.train_rows :]
        return [
            {"prompt": f"{word} backwards: ", "response": word[::-1], "answer": word[::-1], "metadata": "{}"}
            for word in chosen
        ]

    def score(self, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[float]:
        return [float(value) for value in self._metric.score(completions, rows)]  # type: ignore[arg-type]
