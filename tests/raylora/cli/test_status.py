from __future__ import annotations


def test_finished_run_tells_its_best(workplace, table, answer) -> None:
    run = workplace / "runs" / "sums"
    shown = table("status", run)
    assert f"{run}: finished" in shown and "2 finished" in shown and "best so far: lora" in shown
    assert answer("status", run)["counts"]["finished"] == 2


def test_interrupted_run_tells_how_to_go_on(interrupted, table) -> None:
    shown = table("status", interrupted)
    assert "interrupted" in shown and f"raylora resume {interrupted}" in shown and "1 unfinished" in shown


def test_folder_without_a_run_is_one_line(tmp_path, mistake) -> None:
    assert "holds no spec.yaml" in mistake("status", tmp_path)
