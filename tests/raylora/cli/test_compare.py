from __future__ import annotations


def test_mistakes_are_one_line_before_training(tmp_path, mistake) -> None:
    assert mistake("compare", "a.yaml", "--seeds", "0,x", "--to", tmp_path / "x").startswith("--seeds: 0,x; allowed")
    assert "nothing but overrides" in mistake("compare", "search.trials=2", "--to", tmp_path / "x")
