from __future__ import annotations


def test_folder_without_runs_is_one_line(tmp_path, mistake) -> None:
    assert mistake("bench", "convergence-report", tmp_path, "--to", tmp_path / "x")
