from __future__ import annotations

import json

from tests.raylora.run.test_sizes import DENSE


def test_a_recipe_is_shown_to_people_and_programs(tmp_path, capsys) -> None:
    from raylora.cli import main

    (tmp_path / "config.json").write_text(json.dumps(DENSE))
    assert main(["recommend", "--model", str(tmp_path), "--samples", "100000"]) == 0
    assert "with probability 0.8" in capsys.readouterr().out
    assert main(["recommend", "--model", str(tmp_path), "--samples", "100000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["variant"] == "lora"
