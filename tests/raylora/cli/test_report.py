from __future__ import annotations

from pathlib import Path


def test_files_of_a_run_are_told(workplace, tmp_path, answer) -> None:
    stem = tmp_path / "sweep"
    files = answer("report", workplace / "runs" / "sums", "--to", stem, "--grid", tmp_path / "grid.csv")["files"]
    assert {f"{stem}.md", f"{stem}.records.json", str(tmp_path / "grid.csv")} <= set(files)
    assert all(Path(file).stat().st_size for file in files)


def test_folder_without_a_run_is_one_line(tmp_path, mistake) -> None:
    assert mistake("report", tmp_path, "--to", tmp_path / "x")
