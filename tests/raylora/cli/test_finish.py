from __future__ import annotations

from raylora.cli import main


def test_a_run_without_any_result_is_one_line(write_spec, tmp_path, capsys) -> None:
    from raylora.run.folder import RUN_MARK

    folder = tmp_path / "begun"
    folder.mkdir()
    (folder / RUN_MARK).write_text("")
    (folder / "spec.yaml").write_text(write_spec().read_text())
    assert main(["finish", str(folder)]) == 2
    assert capsys.readouterr().err.startswith("raylora: search.trials: none of the 0 trials has a result")


def test_a_finished_run_is_answered_from_its_files(finished_run, capsys) -> None:
    assert main(["finish", str(finished_run.folder), "--json"]) == 0
    assert '"metric": "accuracy"' in capsys.readouterr().out
