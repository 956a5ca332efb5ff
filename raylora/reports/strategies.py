"""`raylora strategies`: which slices LeLoRA's policy chose over training, by layer third and by matrix type.

What the paper's figure 3 shows, from the Parquet files that trials leave in `RUN_DIR/strategies`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from raylora.errors import UserError
from raylora.reports.plots import load_pyplot
from raylora.run.folder import read_run
from raylora.run.stored import is_stored
from raylora.spec.paths import output_stem

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def read_strategies(source: str | Path) -> pd.DataFrame:
    """Rows of one trial's Parquet, or of all trials in a run's folder that had a policy (if none had, of all).

    Raises:
        UserError: there are none.
    """
    path = read_run(source)[0] if is_stored(source) else Path(source).expanduser()
    files = sorted((path / "strategies").glob("*.parquet")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise UserError.at(
            "SOURCE",
            f"{path} holds no strategies; give a run with trials of lelora, or one of its Parquets",
            value=str(path),
        )
    tables = []
    for file in files:
        try:
            tables.append(pd.read_parquet(file, columns=["policy", "step", "layer", "kind", "r", "position"]))
        except (OSError, ValueError, KeyError):
            raise UserError.at("SOURCE", f"{file} holds no strategies", value=str(file)) from None
    chosen = [table for table in tables if not (table["policy"] == "random").any()]
    return pd.concat(chosen or tables, ignore_index=True)


def write_strategies(table: pd.DataFrame, stem: str | Path, parts: int = 8) -> list[Path]:
    """Writes `STEM.csv` (see `trainables.lelora.history.summarise`) and `STEM.svg`.

    Raises:
        UserError: matplotlib is missing (extra `report`).
    """
    from trainables.lelora.history import summarise

    stem = output_stem(stem)
    csv, plot = Path(f"{stem}.csv"), Path(f"{stem}.svg")
    summary = summarise(table, parts)
    summary.to_csv(csv, index=False, float_format="%.4g")
    _plot(summary, plot)
    return [csv, plot]


def _plot(summary: pd.DataFrame, path: Path) -> None:
    pyplot = load_pyplot("strategies")
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), layout="constrained", sharex=True)
    for column, (by, title) in enumerate((("third", "layers"), ("kind", "matrix types"))):
        rows = summary[summary["by"] == by]
        _draw(axes[0][column], rows, "r", "mean dimension r")
        _draw(axes[1][column], rows, "place", "mean position")
        axes[0][column].set_title(title)
        axes[0][column].legend(fontsize=8)
        axes[1][column].set_ylim(-0.05, 1.05)
        axes[1][column].set_yticks([0, 0.5, 1], ["primary", "middle", "minor"])
        axes[1][column].set_xlabel("optimizer step")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _draw(axis: Axes, rows: pd.DataFrame, column: str, label: str) -> None:
    for number, (group, lines) in enumerate(rows.groupby("group", sort=True)):
        axis.plot(lines["step"], lines[column], marker="os^Dv"[number % 5], markersize=4, label=str(group))
    axis.set_ylabel(label)
    axis.grid(alpha=0.3)
