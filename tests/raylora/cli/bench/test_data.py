from __future__ import annotations


def test_figures_are_shown_and_rows_passed_on(monkeypatch, table, answer) -> None:
    monkeypatch.setattr("raylora.bench.data.bench_data", lambda **options: {"rows": float(options["rows"])})
    assert answer("bench", "data", "--rows", "12") == {"rows": 12.0}
    assert "12" in table("bench", "data", "--rows", "12")


def test_no_rows_are_refused(mistake) -> None:
    assert "--rows: 0" in mistake("bench", "data", "--rows", "0")
