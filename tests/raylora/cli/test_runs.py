from __future__ import annotations


def test_runs_are_listed_with_their_state(workplace, table, answer) -> None:
    shown = table("runs", workplace / "runs")
    assert "finished" in shown and "2/2" in shown and "instruct" in shown
    rows = {row["run_dir"]: row["state"] for row in answer("runs", workplace / "runs")}
    assert rows[str(workplace / "runs" / "again")] == "finished"


def test_folder_without_runs_is_an_empty_list(tmp_path, answer) -> None:
    assert answer("runs", tmp_path) == []


def test_missing_folder_is_one_line(tmp_path, mistake) -> None:
    assert mistake("runs", tmp_path / "none").startswith("FOLDER: ")
