from __future__ import annotations

import json

from raylora.cli import main


def test_schema_is_printed_with_the_names_there_are(capsys) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "dora" in schema["$defs"]["SpaceSpec"]["properties"]["variant"]["examples"]


def test_schema_goes_to_a_file(tmp_path, table) -> None:
    assert table("schema", "--json", tmp_path / "raylora.schema.json") == ""
    assert "properties" in json.loads((tmp_path / "raylora.schema.json").read_text())
