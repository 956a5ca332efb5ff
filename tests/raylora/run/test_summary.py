from __future__ import annotations

import json

from raylora.run.summary import Summary, read_summary, write_summary

SUMMARY: Summary = {
    "metric": "accuracy",
    "mode": "max",
    "trials": 3,
    "best": {"config": {"rank": 4}, "validation": 0.5},
    "run_dir": "/elsewhere",
    "wall_s": 1.5,
}


def test_a_summary_is_read_back_with_the_folders_present_place(tmp_path) -> None:
    file = write_summary(tmp_path, SUMMARY)
    assert json.loads(file.read_text()) == SUMMARY
    assert read_summary(tmp_path) == {**SUMMARY, "run_dir": str(tmp_path)}


def test_one_that_is_missing_or_torn_is_none(tmp_path) -> None:
    assert read_summary(tmp_path) is None
    file = write_summary(tmp_path, SUMMARY)
    file.write_text(file.read_text()[:30])
    assert read_summary(tmp_path) is None
