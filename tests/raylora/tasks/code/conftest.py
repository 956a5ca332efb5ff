from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_FOLDERS = [parent / "shared" / "data" for parent in Path(__file__).resolve().parents]


@pytest.fixture
def published() -> Callable[[str, str], list[dict[str, Any]]]:
    """Rows of `shared/data/NAME/SPLIT.parquet` in or above this checkout; none where it is not there."""
    import pyarrow.parquet as pq

    def rows(name: str, split: str) -> list[dict[str, Any]]:
        paths = [folder / name / f"{split}.parquet" for folder in _FOLDERS]
        return next((pq.read_table(path).to_pylist() for path in paths if path.exists()), [])

    return rows
