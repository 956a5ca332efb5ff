"""Supervised rows from the user's own files or from a hub dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from string import Formatter
from typing import TYPE_CHECKING, Any

from raylora.data.rows import Source
from raylora.data.sources import Open, open_splits
from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.tasks.base import Task, check_positive

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

MATCHES = ("exact", "number", "contains")


def _column(table: pa.Table, name: str) -> list[str]:
    return ["" if value is None else str(value) for value in table.column(name).to_pylist()]


def to_rows(
    table: pa.Table,
    *,
    task: str,
    prompt_template: str | None = None,
    response_column: str | None = None,
    labels: Mapping[Any, str] | None = None,
) -> pa.Table:
    """Columns `prompt, response, answer, metadata` (all strings) from the columns that the rows have.

    These are prompt/response/answer, question/answer, or whatever `prompt_template` and `response_column` name.
    `response` defaults to `answer` and `answer` to `response`; `labels` replaces values of either.

    Raises:
        UserError: a column is not there (the message lists those that are), or a response has no label.
    """
    present = table.schema.names
    if prompt_template is not None and response_column is not None:
        fields = _fields(prompt_template)
        for name in (*fields, response_column):
            if name not in present:
                option = "prompt_template" if name in fields else "response_column"
                raise UserError(f"task.options.{option}: no column {name!r}; present: {', '.join(present) or 'none'}")
        columns = {name: _column(table, name) for name in fields}
        prompts = [
            prompt_template.format(**{name: values[row] for name, values in columns.items()})
            for row in range(table.num_rows)
        ]
        responses = _labelled(_column(table, response_column), labels)
        return _strings(prompts, responses, responses)
    prompt = next((name for name in ("prompt", "question") if name in present), None)
    response = next((name for name in ("response", "answer") if name in present), None)
    answer = next((name for name in ("answer", "response") if name in present), None)
    if prompt is None or response is None or answer is None:
        raise UserError(
            f"task.path: the rows of {task} need the columns prompt and response (and optionally answer), or "
            f"question and answer; present: {', '.join(present) or 'none'}",
            field="task.path",
            value=present,
            allowed=["prompt", "response", "answer", "question"],
        )
    answers, responses = (_labelled(_column(table, name), labels) for name in (answer, response))
    return _strings(_column(table, prompt), responses, answers)


def _fields(template: str) -> list[str]:
    """Names of the columns that a template has in braces."""
    return list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(template) if name is not None))


def _labelled(values: list[str], labels: Mapping[Any, str] | None) -> list[str]:
    if labels is None:
        return values
    named = {str(value): str(label) for value, label in labels.items()}
    missing = sorted({value for value in values if value not in named})
    if missing:
        raise UserError(f"task.options.labels: none for the value {missing[0]!r}; given: {', '.join(named)}")
    return [named[value] for value in values]


def _strings(prompts: list[str], responses: list[str], answers: list[str]) -> pa.Table:
    import pyarrow as pa

    columns = {"prompt": prompts, "response": responses, "answer": answers, "metadata": ["{}"] * len(prompts)}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


class InstructTask(Task):
    """Rows of instructions and the responses to them.

    Their columns are prompt, response and optionally answer; question and answer; or, for labelled data, any that
    `prompt_template` and `response_column` name.

    The score is the metric that `match` names, see `raylora.metrics`.

    Args:
        path: local file or folder, URL, or hub dataset id: see `raylora.data.sources.open_splits`.
        match: `exact`, `number` or `contains`.
        config: configuration name of a hub dataset.
        prompt_template: the prompt, with column names in braces: `"{sentence1} Is it correct?"`. Together with
            `response_column`.
        response_column: the column of the response.
        labels: what to write for each value of the response: `{0: "no", 1: "yes"}`.
        train_rows, test_rows: bounds on the splits; None for all rows.
        max_new_tokens: longest completion to generate, in tokens.
    """

    name = "instruct"
    summary = "your own prompt/response rows from Parquet, JSON Lines or the hub"

    def __init__(
        self,
        *,
        path: str,
        match: str = "exact",
        config: str | None = None,
        prompt_template: str | None = None,
        response_column: str | None = None,
        labels: Mapping[Any, str] | None = None,
        train_rows: int | None = None,
        test_rows: int | None = None,
        max_new_tokens: int = 64,
    ) -> None:
        if match not in MATCHES:
            raise UserError(f"task.match: unknown {match!r}; choose one of {', '.join(MATCHES)}")
        check_positive("train_rows", train_rows)
        check_positive("test_rows", test_rows)
        check_positive("max_new_tokens", max_new_tokens)
        if (prompt_template is None) != (response_column is None):
            missing = "prompt_template" if prompt_template is None else "response_column"
            raise UserError(f"task.options.{missing}: missing; prompt_template and response_column go together")
        try:
            named = prompt_template is None or all(_fields(prompt_template))
        except ValueError:
            named = False
        if not named:
            raise UserError(
                f"task.options.prompt_template: {prompt_template!r}; allowed: text with columns in {{braces}}"
            )
        self.prompt_template, self.response_column, self.labels = prompt_template, response_column, labels
        self.path, self.match, self.config = str(path), match, config
        self.train_rows, self.test_rows, self.max_new_tokens = train_rows, test_rows, max_new_tokens
        self._metric = make_metric(match)
        self.metric, self.mode, self.worst = self._metric.reported, self._metric.mode, self._metric.worst
        self._open: dict[str, Open] = open_splits(self.path, config)

    def _map(self, table: pa.Table) -> pa.Table:
        return to_rows(
            table,
            task=self.name,
            prompt_template=self.prompt_template,
            response_column=self.response_column,
            labels=self.labels,
        )

    def _split(self, name: str) -> ray.data.Dataset:
        # No batch size: a block is mapped whole, and Ray fuses this step with the read.
        return self._open[name]().map_batches(self._map, batch_format="pyarrow", batch_size=None)

    def splits(self) -> dict[str, Source]:
        return {name: partial(self._split, name) for name in self._open}

    def score(self, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[float]:
        return [float(value) for value in self._metric.score(completions, rows)]  # type: ignore[arg-type]
