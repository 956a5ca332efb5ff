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


def test_runs_that_cannot_be_read_are_listed_with_why_and_hide_no_other(table, answer, tmp_path) -> None:
    for name, spec in (("torn", "model: ["), ("none", None), ("later", "version: 99\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".raylora").write_text("")
        if spec is not None:
            (tmp_path / name / "spec.yaml").write_text(spec)
    rows = {row["run_dir"].rpartition("/")[2]: row for row in answer("runs", tmp_path)}
    assert {row["state"] for row in rows.values()} == {"broken"}
    assert "not valid YAML" in rows["torn"]["problem"] and "holds no spec.yaml" in rows["none"]["problem"]
    assert "is of a later release" in table("runs", tmp_path)
