"""Raw rows: what a task hands to the data pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
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
        """Raw rows by split: `train` always, `validation` and `test` where the source has them."""
        ...


def metadata_text(value: Any) -> str:
    """`value` as the JSON text of the `metadata` column; None is `{}`, a string is kept as it is."""
    if value is None:
        return "{}"
    return value if isinstance(value, str) else json.dumps(value)
