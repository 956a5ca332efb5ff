"""Supervised rows from the user's own files or from a hub dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raylora.data.columns import fields
from raylora.data.rows import Source
from raylora.data.sources import Read, open_splits
from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.tasks.base import Task, check_positive

if TYPE_CHECKING:
    import pyarrow as pa

MATCHES = ("exact", "number", "contains")


class InstructTask(Task):
    """Rows of your own: instructions and responses, conversations, labelled rows, plain text.

    What the columns mean is recognised by their names and values (see `raylora.data.columns`); `columns` or a template
    override that. The score is the metric that `match` names, see `raylora.metrics`.

    Args:
        path: file, folder, glob, URL, or hub dataset id: see `raylora.data.sources.open_splits`.
        train, validation, test: sources of these splits, apart from `path`: see `raylora.data.sources.wanted`.
        test_sets: sources of several test sets by name, instead of `test`.
        match: `exact`, `number` or `contains`.
        config: configuration name of a hub dataset, or a sub-folder of a folder.
        columns: role -> column, such as `{prompt: input, response: output}`.
        prompt_template: the prompt, with column names in braces: `"{sentence1} Is it correct?"`. Together with
            `response_column`.
        response_column: the column of the response.
        labels: what to write for each value of the response: `{0: "no", 1: "yes"}`.
        list_labels: whether the prompts of labelled rows name the labels, where there are 2 to 20.
        train_rows, test_rows: bounds on the splits; None for all rows.
        max_new_tokens: longest completion to generate, in tokens.
    """

    name = "instruct"
    summary = "your own rows: prompts and responses, conversations, labelled rows or text, from files or the hub"

    def __init__(
        self,
        *,
        path: str | None = None,
        train: Any = None,
        validation: Any = None,
        test: Any = None,
        test_sets: Mapping[str, Any] | None = None,
        match: str = "exact",
        config: str | None = None,
        columns: Mapping[str, str] | None = None,
        prompt_template: str | None = None,
        response_column: str | None = None,
        labels: Mapping[Any, str] | None = None,
        list_labels: bool = True,
        train_rows: int | None = None,
        test_rows: int | None = None,
        max_new_tokens: int = 64,
    ) -> None:
        if match not in MATCHES:
            raise UserError.at(
                "task.match", f"unknown {match!r}; choose one of {', '.join(MATCHES)}", value=match, allowed=MATCHES
            )
        check_positive("train_rows", train_rows)
        check_positive("test_rows", test_rows)
        check_positive("max_new_tokens", max_new_tokens)
        if (prompt_template is None) != (response_column is None):
            missing = "prompt_template" if prompt_template is None else "response_column"
            raise UserError.at(f"task.options.{missing}", "missing; prompt_template and response_column go together")
        try:
            named = prompt_template is None or all(fields(prompt_template))
        except ValueError:
            named = False
        if not named:
            raise UserError.at(
                "task.options.prompt_template",
                f"{prompt_template!r}; allowed: text with columns in {{braces}}",
                value=prompt_template,
            )
        if path is None and train is None:
            raise UserError.at("task.path", f"{self.name} needs it; set task.path, or task.train")
        self.prompt_template, self.response_column, self.labels = prompt_template, response_column, labels
        self.path, self.match, self.config, self.columns = None if path is None else str(path), match, config, columns
        self.train_rows, self.test_rows, self.max_new_tokens = train_rows, test_rows, max_new_tokens
        self._metric = make_metric(match)
        self.default_metrics = (match,)
        reading = Read(self.name, columns, prompt_template, response_column, labels, self.finish)
        own = {"train": train, "validation": validation, "test": test}
        own |= {f"test.{name}": source for name, source in (test_sets or {}).items()}
        self.test_sets = tuple(test_sets or {})
        self._open = open_splits(self.path, config, own=own, reading=reading)
        if list_labels:
            for source in self._open.values():
                source.labels_from = self._open["train"]

    @staticmethod
    def finish(table: pa.Table) -> pa.Table:
        """A step of a family's own on tables of normalised rows."""
        return table

    def splits(self) -> dict[str, Source]:
        return dict(self._open)

    def score(self, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[float]:
        return [float(value) for value in self._metric.score(completions, rows)]  # type: ignore[arg-type]
