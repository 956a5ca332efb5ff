"""Normalised rows: what a task hands to the data pipeline, whatever its files look like.

Columns, all but the last of text: `prompt`, `response`, `answer`, `metadata` (JSON); and, null where there is nothing
to say, `conversation` (JSON, see `raylora.data.conversation`), `problem` (why the row cannot be used, see
`raylora.data.problems`), `source_file` and `source_row` (the line or the number of the row in it, from 1).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

Row = dict[str, Any]
Source = Callable[[], "ray.data.Dataset | list[Row]"]


class RowSource(Protocol):
    """What `data.build` reads of a task.

    Attributes:
        max_new_tokens: longest completion worth generating, in tokens.
        train_rows, test_rows: bound on a split, or None for all of it; a longer split is sampled, by seed.
    """

    max_new_tokens: int
    train_rows: int | None
    test_rows: int | None

    def splits(self) -> dict[str, Source]:
        """Raw rows by split: `train` always, `validation`, and `test` or `test.<name>`s where the source has them."""
        ...


TEXT_COLUMNS = ("prompt", "response", "answer", "metadata", "conversation", "problem", "source_file")


def row_schema() -> pa.Schema:
    """Columns of a table of normalised rows."""
    import pyarrow as pa

    return pa.schema([*((name, pa.string()) for name in TEXT_COLUMNS), ("source_row", pa.int64())])


def row_table(columns: Mapping[str, Sequence[object]]) -> pa.Table:
    """A table of normalised rows from columns of equal length; those that are not there are null."""
    import pyarrow as pa

    count = len(columns["prompt"])
    schema = row_schema()
    return pa.table(
        {name: pa.array(columns.get(name, [None] * count), schema.field(name).type) for name in schema.names},
        schema=schema,
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def table_of(rows: Sequence[Row]) -> pa.Table:
    """A table of normalised rows from mappings with `prompt`, `response`, `answer` and the columns there may be."""
    columns: dict[str, list[object]] = {
        name: [_text(row[name]) for row in rows] for name in ("prompt", "response", "answer")
    }
    columns["metadata"] = [metadata_text(row.get("metadata")) for row in rows]
    for name in ("conversation", "problem", "source_file", "source_row"):
        columns[name] = [row.get(name) for row in rows]
    return row_table(columns)


def metadata_text(value: object) -> str:
    """`value` as the JSON text of the `metadata` column; None is `{}`, a string is kept as it is."""
    if value is None:
        return "{}"
    return value if isinstance(value, str) else json.dumps(value)
