from __future__ import annotations

from pathlib import Path


def test_files_of_a_run_are_told(workplace, tmp_path, answer) -> None:
    stem = tmp_path / "sweep"
    files = answer("report", workplace / "runs" / "sums", "--to", stem, "--grid", tmp_path / "grid.csv")["files"]
    assert {f"{stem}.md", f"{stem}.records.json", str(tmp_path / "grid.csv")} <= set(files)
    assert all(Path(file).stat().st_size for file in files)


def test_folder_without_a_run_is_one_line(tmp_path, mistake) -> None:
    assert mistake("report", tmp_path, "--to", tmp_path / "x")


def test_a_page_is_written_beside_the_run_by_default(workplace, answer) -> None:
    run = workplace / "runs" / "sums"
    assert answer("report", run)["files"] == [str(run / "report.html")]
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def test_a_page_of_several_runs_goes_where_it_is_told(workplace, interrupted, tmp_path, answer) -> None:
    page = tmp_path / "both.html"
    assert answer("report", workplace / "runs" / "sums", interrupted, "--to", page, "--no-rows")["files"] == [str(page)]
    assert "Rows are left out of this page." in page.read_text()


def test_options_of_the_other_kind_are_refused(workplace, tmp_path, mistake) -> None:
    run = workplace / "runs" / "sums"
    assert "--grid" in mistake("report", run, "--to", tmp_path / "x.html", "--grid", tmp_path / "grid.csv")
    assert "--no-rows" in mistake("report", run, "--to", tmp_path / "x", "--no-rows")
