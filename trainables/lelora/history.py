"""Strategies over time: one Parquet per trial, and what the paper's figure 3 shows of them.

Columns: `policy` (the variant's option of that name), `step` (the optimizer step from which it holds), `matrix`,
`layer` (-1 where the name has none), `kind`, `r`, `position` (of `slices.POSITIONS`). Names are dictionary-encoded:
1,000 steps of a 30-layer model take some 10 kB.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainables.lelora.slices import POSITIONS

if TYPE_CHECKING:
    import pandas as pd

THIRDS = ("front", "middle", "back")


class History:
    """The strategies of one trial.

    Args:
        names, layers, kinds: of the N matrices.
        policy: what chose them, as the variant's option names it.
        path: the Parquet; None keeps them in memory only.
    """

    def __init__(
        self, names: Sequence[str], layers: Sequence[int], kinds: Sequence[str], policy: str, path: Path | None
    ) -> None:
        self.policy = policy
        self.names, self.layers, self.kinds, self.path = list(names), list(layers), list(kinds), path
        self._steps: list[int] = []
        self._r: list[np.ndarray] = []
        self._s: list[np.ndarray] = []

    def add(self, step: int, r: Sequence[int], positions: Sequence[str]) -> None:
        """The strategies that hold from `step` on, for each matrix."""
        self._steps.append(step)
        self._r.append(np.asarray(r, dtype=np.int16))
        self._s.append(np.asarray([POSITIONS.index(position) for position in positions], dtype=np.int8))

    def resume(self, step: int) -> None:
        """Takes over what the Parquet holds of the time before `step`."""
        if self.path is None or not self.path.exists():
            return
        import pyarrow.parquet as pq

        table = pq.read_table(self.path).to_pandas()
        if len(table) % len(self.names):
            return
        self._steps, self._r, self._s = [], [], []
        for start in range(0, len(table), len(self.names)):
            rows = table.iloc[start : start + len(self.names)]
            if int(rows["step"].iloc[0]) < step:
                self.add(int(rows["step"].iloc[0]), rows["r"].to_numpy(), rows["position"].to_list())

    def write(self) -> None:
        """The Parquet, replaced in one step. Nothing where there is no path or nothing has happened."""
        if self.path is None or not self._steps:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        times, count = len(self._steps), len(self.names)

        def repeated(values: Sequence[object]) -> pa.DictionaryArray:
            return pa.array(list(values) * times).dictionary_encode()

        positions = pa.DictionaryArray.from_arrays(pa.array(np.concatenate(self._s)), pa.array(POSITIONS))
        table = pa.table(
            {
                "policy": pa.array([self.policy] * (times * count)).dictionary_encode(),
                "step": pa.array(np.repeat(np.asarray(self._steps, dtype=np.int32), count)),
                "matrix": repeated(self.names),
                "layer": pa.array(np.tile(np.asarray(self.layers, dtype=np.int16), times)),
                "kind": repeated(self.kinds),
                "r": pa.array(np.concatenate(self._r)),
                "position": positions,
            }
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f".{uuid.uuid4().hex}")
        pq.write_table(table, fresh, compression="zstd")
        os.replace(fresh, self.path)


def summarise(table: pd.DataFrame, parts: int = 8) -> pd.DataFrame:
    """Mean dimension and position of the strategies, by layer third and by matrix type, over training.

    Args:
        table: the columns of the module.
        parts: training is cut into as many parts of equal length (fewer where there are fewer intervals).

    Returns:
        Columns `by` (third or kind), `group`, `part` (from 0), `step` (the first one of the part), `r` (mean over all
        matrices of the group, zeros included), and over those with r > 0: `place` (mean position: 0 primary, 0.5
        middle, 1 minor) and the shares `primary`, `middle`, `minor`; those are NaN where all r are 0.
    """
    import pandas as pd

    table = table.copy()
    steps = np.sort(table["step"].unique())
    parts = min(parts, len(steps))
    edges = np.array([chunk[0] for chunk in np.array_split(steps, parts)])
    table["part"] = np.searchsorted(edges, table["step"].to_numpy(), side="right") - 1
    layers = int(table["layer"].max()) + 1
    third = np.clip(table["layer"].to_numpy() * 3 // max(1, layers), 0, 2)
    table["third"] = np.where(table["layer"] < 0, "none", np.array(THIRDS)[third])
    position = table["position"].astype(str)
    used = table["r"] > 0
    table["place"] = position.map({name: i / 2 for i, name in enumerate(POSITIONS)}).where(used)
    for name in POSITIONS:
        table[name] = (position == name).astype(float).where(used)
    found = []
    for by in ("third", "kind"):
        means = table.groupby([by, "part"], observed=True)[["r", "place", *POSITIONS]].mean().reset_index()
        means = means.rename(columns={by: "group"}).assign(by=by)
        means["group"] = means["group"].astype(str)
        found.append(means)
    result = pd.concat(found, ignore_index=True)
    result["step"] = edges[result["part"].to_numpy()]
    return result[["by", "group", "part", "step", "r", "place", *POSITIONS]]
