"""What base, default and found recipe answered in the final stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raylora.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

# The final stage's labels, and what people call them.
LABELS = {"best": "found", "default": "default", "base": "base"}


def read_predictions(folder: Path, split: str = "test", *, seed: int = 0) -> pd.DataFrame:
    """Rows of a split with the answers to them; see `raylora.api.run.Run.predictions`.

    Raises:
        UserError: The final stage has not written that split.
    """
    import pandas as pd

    table: pd.DataFrame | None = None
    for label, name in LABELS.items():
        place = folder / "final" / (label if label == "base" else f"{label}-{seed}")
        # Several workers write a file each.
        files = sorted([*place.glob(f"{split}.parquet"), *place.glob(f"{split}-*.parquet")])
        if not files:
            continue
        part = pd.concat([pd.read_parquet(file) for file in files])
        rows = ["row", "prompt", "answer"]
        names = {column: f"{name}_{column}" for column in part if column not in rows}
        part = part.rename(columns={**names, "completion": name})
        part = part[[*rows, *[column for column in part if column not in rows]]]
        table = part if table is None else table.merge(part.drop(columns=rows[1:]), on="row", how="outer")
    if table is None:
        raise UserError(
            f"split = {split!r}: the final stage of {folder} wrote no answers to it; "
            "allowed: test or validation, of a run with final.enabled that is finished",
            field="split",
            value=split,
            allowed=("test", "validation"),
        )
    return table.sort_values("row", ignore_index=True)
