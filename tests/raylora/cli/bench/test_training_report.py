from __future__ import annotations


def test_folder_without_searches_is_one_line(tmp_path, mistake) -> None:
    assert "no search there" in mistake("bench", "training-report", tmp_path, "--to", tmp_path / "x")
