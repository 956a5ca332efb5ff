"""Supervised rows from the user's own files or from a hub dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from raylora.errors import UserError
from raylora.tasks.base import Source, Task, check_lengths, check_positive
from raylora.tasks.sources import Open, open_splits

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

# A minus sign counts only where nothing stands before it that it could be subtracted from: "5-3" ends in 3.
_NUMBER = re.compile(r"((?<![\w)\]])-\$?|\$-?)?(\d{1,3}(?:,\d{3})+(?!\d)|\d+)(\.\d+)?")


def last_number(text: str) -> Decimal | None:
    """The last number in `text`: `"$1,250.00"` is 1250, `"-$3"` is -3; None where there is none."""
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    sign, whole, fraction = found.group(1) or "", found.group(2).replace(",", ""), found.group(3) or ""
    return Decimal(f"{'-' if '-' in sign else ''}{whole}{fraction}")


def normalise(text: str) -> str:
    """Lower case, single spaces, without the quotes, stops and commas around it."""
    return " ".join(text.casefold().split()).strip(" .,;:!\"'`")


def _exact(completion: str, row: Mapping[str, Any]) -> bool:
    return normalise(completion) in {normalise(row["answer"]), normalise(row["response"])}


def _number(completion: str, row: Mapping[str, Any]) -> bool:
    wanted = last_number(row["answer"])
    return wanted is not None and last_number(completion) == wanted


def _contains(completion: str, row: Mapping[str, Any]) -> bool:
    answer = normalise(row["answer"])
    return bool(answer) and re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", normalise(completion)) is not None


MATCHES = {"exact": _exact, "number": _number, "contains": _contains}


def _column(table: pa.Table, name: str) -> list[str]:
    return ["" if value is None else str(value) for value in table.column(name).to_pylist()]


def to_rows(table: pa.Table, *, task: str) -> pa.Table:
    """Columns `prompt, response, answer, metadata` (all strings) from prompt/response/answer or
    question/answer.

    `response` defaults to `answer` and `answer` to `response`.

    Raises:
        UserError: neither pair of columns is there; the message lists those that are.
    """
    import pyarrow as pa

    present = table.schema.names
    prompt = next((name for name in ("prompt", "question") if name in present), None)
    response = next((name for name in ("response", "answer") if name in present), None)
    answer = next((name for name in ("answer", "response") if name in present), None)
    if prompt is None or response is None or answer is None:
        raise UserError(
            f"task.path: the rows of {task} need the columns prompt and response (and optionally answer), or "
            f"question and answer; present: {', '.join(present) or 'none'}"
        )
    return pa.table(
        {
            "prompt": pa.array(_column(table, prompt), pa.string()),
            "response": pa.array(_column(table, response), pa.string()),
            "answer": pa.array(_column(table, answer), pa.string()),
            "metadata": pa.array(["{}"] * table.num_rows, pa.string()),
        }
    )


class InstructTask(Task):
    """Rows with the columns prompt, response and optionally answer, or question and answer.

    Score, by `match`:
        exact: the completion equals the answer or the whole reference response, both normalised (case,
            spacing and surrounding punctuation do not count).
        number: the last number in the completion equals the last number in the answer.
        contains: the normalised answer stands in the completion as whole words.

    Args:
        path: local file or folder, URL, or hub dataset id: see `raylora.tasks.sources.open_splits`.
        match: `exact`, `number` or `contains`.
        config: configuration name of a hub dataset.
        train_rows, test_rows: bounds on the splits; None for all rows.
        max_new_tokens: longest completion to generate, in tokens.
    """

    name = "instruct"

    def __init__(
        self,
        *,
        path: str,
        match: str = "exact",
        config: str | None = None,
        train_rows: int | None = None,
        test_rows: int | None = None,
        max_new_tokens: int = 64,
    ) -> None:
        if match not in MATCHES:
            raise UserError(f"task.match: unknown {match!r}; choose one of {', '.join(MATCHES)}")
        check_positive("train_rows", train_rows)
        check_positive("test_rows", test_rows)
        check_positive("max_new_tokens", max_new_tokens)
        self.path, self.match, self.config = str(path), match, config
        self.train_rows, self.test_rows, self.max_new_tokens = train_rows, test_rows, max_new_tokens
        self._open: dict[str, Open] = open_splits(self.path, config)

    def _map(self, table: pa.Table) -> pa.Table:
        return to_rows(table, task=self.name)

    def _split(self, name: str) -> ray.data.Dataset:
        # No batch size: a block is mapped whole, and Ray fuses this step with the read.
        return self._open[name]().map_batches(self._map, batch_format="pyarrow", batch_size=None)

    def splits(self) -> dict[str, Source]:
        return {name: partial(self._split, name) for name in self._open}

    def score(self, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[float]:
        check_lengths(completions, rows)
        matches = MATCHES[self.match]
        return [float(matches(text, row)) for text, row in zip(completions, rows, strict=True)]
