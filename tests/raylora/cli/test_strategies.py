from __future__ import annotations


def test_mistakes_are_one_line(workplace, tmp_path, mistake) -> None:
    run = workplace / "runs" / "sums"
    assert "holds no strategies" in mistake("strategies", run, "--to", tmp_path / "x")
    assert mistake("strategies", run, "--to", tmp_path / "x", "--parts", "0") == "--parts: 0; allowed: at least 1"
