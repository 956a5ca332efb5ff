from __future__ import annotations

import os

import pytest

import raylora
from raylora.run.folder import RUN_MARK


@pytest.mark.parametrize("name", ["variants", "searchers", "metrics", "trackers"])
def test_each_entry_has_a_name_of_its_own_and_says_what_it_is(name: str) -> None:
    rows = getattr(raylora, f"list_{name}")()
    assert len({row["name"] for row in rows}) == len(rows) > 3
    assert all(row["summary"] and "\n" not in row["summary"] for row in rows)


def test_runs_of_a_folder_come_newest_first(old_run, tmp_path) -> None:
    finished, interrupted = old_run("finished"), old_run("interrupted")
    for time, run in enumerate((interrupted, finished)):
        os.utime(run / RUN_MARK, (time, time))
    rows = raylora.list_runs(tmp_path)
    assert [(row["run_dir"], row["state"]) for row in rows] == [
        (str(finished), "finished"), (str(interrupted), "interrupted"),
    ]  # fmt: skip


def test_a_folder_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(raylora.UserError, match="gone"):
        raylora.list_runs(tmp_path / "gone")
