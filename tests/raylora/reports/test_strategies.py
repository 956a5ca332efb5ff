from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from raylora.errors import UserError
from raylora.reports.strategies import read_strategies, write_strategies
from trainables.lelora.history import History


def trial(run: Path, name: str, policy: str, step: int) -> None:
    log = History(["layers.0.q", "layers.1.up"], [0, 1], ["q", "up"], policy, run / "strategies" / f"{name}.parquet")
    log.add(step, [8, 4], ["primary", "minor"])
    log.write()


def test_trials_without_a_policy_are_left_out_where_others_have_one(tmp_path) -> None:
    trial(tmp_path, "chance", "random", 0)
    assert read_strategies(tmp_path)["step"].tolist() == [0, 0]
    trial(tmp_path, "learned", "per_trial", 10)
    assert read_strategies(tmp_path)["step"].tolist() == [10, 10]


def test_one_trials_file_is_read_too(tmp_path) -> None:
    trial(tmp_path, "a", "per_trial", 3)
    assert read_strategies(tmp_path / "strategies" / "a.parquet")["step"].tolist() == [3, 3]


def test_another_file_is_refused(tmp_path) -> None:
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "x.parquet")
    for source in (tmp_path, tmp_path / "x.parquet", tmp_path / "gone"):
        with pytest.raises(UserError, match="holds no strategies"):
            read_strategies(source)


def test_figures_and_a_plot_are_written(tmp_path) -> None:
    trial(tmp_path, "a", "per_trial", 0)
    csv, plot = write_strategies(read_strategies(tmp_path), tmp_path / "out", parts=1)
    found = pd.read_csv(csv).set_index(["by", "group"])
    assert found.loc[("kind", "q"), "r"] == 8 and found.loc[("kind", "up"), "place"] == 1
    assert "<svg" in plot.read_text()
