from __future__ import annotations

import json

import pytest

from raylora.cli import main


def test_json_to_a_file_leaves_the_table_on_standard_output(tmp_path, table) -> None:
    file = tmp_path / "deep" / "searchers.json"
    assert "what it is" in table("searchers", "--json", file)
    assert {"random", "language"} <= {row["name"] for row in json.loads(file.read_text())}


def test_json_does_not_write_over_another_argument(tmp_path, capsys) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("mine")
    with pytest.raises(SystemExit) as ended:
        main(["tune", "--json", str(spec)])
    assert ended.value.code == 2 and "does not end in .json" in capsys.readouterr().err
    assert spec.read_text() == "mine"


def test_file_that_cannot_be_written_is_one_line(tmp_path, mistake) -> None:
    (tmp_path / "file").write_text("")
    assert mistake("tasks", "--json", tmp_path / "file" / "x.json").startswith("--json ")


def test_a_file_that_cannot_be_written_is_told_before_the_work(tmp_path, mistake, monkeypatch) -> None:
    worked = []
    monkeypatch.setattr("raylora.cli.tasks.run", worked.append)
    (tmp_path / "folder.json").mkdir()
    assert "Is a directory" in mistake("tasks", "--json", tmp_path / "folder.json")
    assert worked == []
