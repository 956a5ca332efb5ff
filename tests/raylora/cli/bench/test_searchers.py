from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seeds", "0"], "--seeds: 0; allowed: at least 1"),
        (["--prior-shift", "0"], "--prior-shift: 0.0; allowed: a factor above 0"),
    ],
)
def test_mistake_is_one_line(mistake, arguments, told) -> None:
    assert mistake("bench", "searchers", "grid.csv", *arguments) == told


def test_each_searcher_is_a_row_with_its_regret(monkeypatch, table, answer) -> None:
    part = {"auc": 0.75, "auc_se": 0.125, "regret": {"1": 0.5}, "wall_s": 3.0, "grids": {}}
    monkeypatch.setattr("raylora.bench.searchers.bench_searchers", lambda *a, **b: {"searchers": {"random": part}})
    assert "0.750 ± 0.125" in table("bench", "searchers", "grid.csv", "--trials", "1")
    assert answer("bench", "searchers", "grid.csv", "--trials", "1")["searchers"]["random"]["auc"] == 0.75
