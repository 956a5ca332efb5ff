from __future__ import annotations

import json

import pytest

from raylora.cli import main


@pytest.fixture
def chat(tmp_path):
    turns = [{"role": "user", "content": "<b>hi</b>"}, {"role": "assistant", "content": "hello"}]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps({"messages": turns, "n": n}) + "\n" for n in range(3)))
    return tmp_path / "chat.jsonl"


def test_it_shows_figures_rows_and_warnings(chat, tiny_model, capsys):
    assert main(["inspect", str(chat), "--model", str(tiny_model)]) == 0
    shown = capsys.readouterr().out
    assert "conversations (messages)" in shown
    assert "trained on: 'hello<|im_end|>'" in shown
    assert "warning: 2 rows of train are duplicates" in shown


def test_json_holds_the_same_and_html_marks_what_is_trained_on(chat, tiny_model, tmp_path, capsys):
    page = tmp_path / "rows.html"
    assert main(["inspect", str(chat), "--model", str(tiny_model), "--html", str(page), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["splits"]["train"]["rows"] == 3
    assert "<mark>hello&lt;|im_end|&gt;</mark>" in page.read_text() and "<b>hi" not in page.read_text()


def test_a_spec_says_how_its_rows_are_read(tmp_path, tiny_model, capsys):
    (tmp_path / "t.csv").write_text("in,out\nhi,hello\nyou,bye\n")
    columns = "{prompt: in, response: out}"
    (tmp_path / "spec.yaml").write_text(
        f"model: {tiny_model}\ntask: {{path: {tmp_path}/t.csv, columns: {columns}, system: S}}"
    )
    assert main(["inspect", str(tmp_path / "spec.yaml")]) == 0
    assert "<|im_start|>system\nS<|im_end|>" in capsys.readouterr().out


def test_columns_are_named_on_the_command_line(tmp_path, tiny_model, capsys):
    (tmp_path / "t.csv").write_text("in,out\nhi,hello\n")
    arguments = ["inspect", str(tmp_path / "t.csv"), "--model", str(tiny_model)]
    assert main([*arguments, "--columns", "prompt=in,response=out"]) == 0
    assert main([*arguments, "--columns", "prompt"]) == 2
    assert main(arguments) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("raylora: --columns: prompt; allowed") and "present: in, out" in told[1]


def test_a_page_that_cannot_be_written_is_refused_before_rows_are_looked_at(chat, mistake, monkeypatch, tmp_path):
    monkeypatch.setattr("raylora.build.inspect_data", lambda *given, **options: pytest.fail("looked"))
    assert mistake("inspect", chat, "--html", tmp_path).startswith("--html ")
