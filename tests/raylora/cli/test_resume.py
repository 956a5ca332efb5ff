from __future__ import annotations

import json


def test_finished_run_is_answered_from_its_files(workplace, answer, table) -> None:
    run = workplace / "runs" / "sums"
    assert answer("resume", run) == json.loads((run / "summary.json").read_text())
    assert "found recipe" in table("resume", run, "--quiet")


def test_folder_without_a_run_is_one_line(tmp_path, mistake) -> None:
    assert "holds no spec.yaml" in mistake("resume", tmp_path)
