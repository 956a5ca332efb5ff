from __future__ import annotations

import json


def test_figures_are_shown_and_written(monkeypatch, tmp_path, table, answer) -> None:
    monkeypatch.setattr("raylora.bench.suggest.bench_suggest", lambda *given, **options: {"seconds": 0.25})
    assert answer("bench", "suggest") == {"seconds": 0.25}
    assert "0.25" in table("bench", "suggest", "--json", tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text()) == {"seconds": 0.25}
