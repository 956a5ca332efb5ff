from __future__ import annotations

import pytest

TOLD = {"seconds": 2.0, "cpu_s": 3.5, "rows_per_s": 4.0, "tokens_per_s": 321.0}


def test_figures_are_shown(monkeypatch, table, answer) -> None:
    figures = {"ours": TOLD, "transformers": {"8": TOLD}, "speedup": 1.0, "cpu_speedup": 1.0, "best_batch": 8}
    figures |= {"equal_rows": 6, "rows": 8, "gaps": {"1": 2e-6, "4": 0.2}, "tied_rows": 1}
    monkeypatch.setattr("raylora.bench.evaluate.bench_evaluate", lambda *given, **options: figures)
    assert answer("bench", "evaluate") == figures
    shown = table("bench", "evaluate")
    assert "321.0" in shown and "6 of 8 answers are equal token for token, 1 more up to a tie" in shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--longest", "3"], "--longest: 3; allowed: at least --shortest, 5"),
        (["--batches", "8,0"], "--batches: 8,0; allowed: whole numbers above 0, separated by commas"),
    ],
)
def test_mistake_is_one_line(mistake, arguments, told) -> None:
    assert mistake("bench", "evaluate", *arguments) == told
