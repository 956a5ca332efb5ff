"""Strategies over time: what is written, taken up again, and summed up."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from trainables.lelora.history import History, summarise

NAMES = ["layers.0.q", "layers.1.q", "layers.2.up"]


def history(path: Path | None) -> History:
    return History(NAMES, [0, 1, 2], ["q", "q", "up"], "per_trial", path)


def test_one_row_per_matrix_and_interval_is_written(tmp_path: Path) -> None:
    log = history(tmp_path / "a" / "trial.parquet")
    log.write()
    assert not (tmp_path / "a").exists()
    log.add(0, [8, 0, 4], ["primary", "minor", "middle"])
    log.add(10, [2, 2, 2], ["minor"] * 3)
    log.write()
    table = pd.read_parquet(tmp_path / "a" / "trial.parquet")
    assert list(table.columns) == ["policy", "step", "matrix", "layer", "kind", "r", "position"]
    assert set(table["policy"]) == {"per_trial"}
    assert table["step"].tolist() == [0, 0, 0, 10, 10, 10]
    assert table["matrix"].tolist() == NAMES * 2
    assert table["r"].tolist() == [8, 0, 4, 2, 2, 2]
    assert table["position"].tolist() == ["primary", "minor", "middle", "minor", "minor", "minor"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["trial.parquet"]


def test_a_run_that_goes_on_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    first = history(tmp_path / "trial.parquet")
    for step in (0, 10, 20):
        first.add(step, [step, 1, 1], ["primary"] * 3)
    first.write()
    second = history(tmp_path / "trial.parquet")
    second.resume(20)
    second.add(20, [99, 1, 1], ["primary"] * 3)
    second.write()
    table = pd.read_parquet(tmp_path / "trial.parquet")
    assert table[table["matrix"] == NAMES[0]]["r"].tolist() == [0, 10, 99]


def test_summary_gives_dimension_and_position_by_third_and_type_over_training(tmp_path: Path) -> None:
    log = history(tmp_path / "trial.parquet")
    log.add(0, [8, 0, 4], ["primary", "minor", "middle"])
    log.add(10, [8, 2, 0], ["minor", "minor", "middle"])
    log.write()
    found = summarise(pd.read_parquet(tmp_path / "trial.parquet"), parts=2).set_index(["by", "group", "part"])
    assert found.loc[("third", "front", 0), ["r", "place", "primary"]].tolist() == [8, 0, 1]
    assert found.loc[("third", "front", 1), ["r", "place", "minor", "step"]].tolist() == [8, 1, 1, 10]
    # A matrix that was left alone counts in the dimension and not in the position.
    assert found.loc[("kind", "q", 0), ["r", "place"]].tolist() == [4, 0]
    assert found.loc[("kind", "up", 1), "r"] == 0
    assert pd.isna(found.loc[("kind", "up", 1), "place"])
    assert found.loc[("kind", "up", 0), "place"] == pytest.approx(0.5)
