"""Small files of the published forms."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

Rows = Sequence[Mapping[str, Any]]


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., Path]:
    """Write `name.jsonl` files (`__` for a folder) below one folder, and return that."""

    def write(**rows: Rows) -> Path:
        for name, several in rows.items():
            file = tmp_path / f"{name.replace('__', '/')}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps(row) + "\n" for row in several))
        return tmp_path

    return write


@pytest.fixture
def rows_of() -> Callable[..., list[dict[str, Any]]]:
    """The normalised rows of a task's split, with the metadata read."""

    def read(task: Any, split: str) -> list[dict[str, Any]]:
        found = [row for table in task.splits()[split].tables() for row in table.to_pylist()]
        return [{**row, "metadata": json.loads(row["metadata"])} for row in found]

    return read


@pytest.fixture
def figures() -> Callable[..., dict[str, float | None]]:
    """What a task's metrics say of one answer per row, on a split."""

    def score(task: Any, split: str, answers: Sequence[str], rows: Rows) -> dict[str, float | None]:
        from trainables.protocols import Outputs

        outputs = Outputs(texts=[[answer] for answer in answers], losses=[(1.0, 2)] * len(answers))
        return task.scoring.figures(split, task.scoring.marks(split, outputs, rows))

    return score
