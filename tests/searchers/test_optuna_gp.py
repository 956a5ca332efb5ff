from __future__ import annotations

from searchers.optuna_gp import OptunaGPSearch
from searchers.testing import SearcherConformance, drive, objective, small_space


class TestOptunaGPSearch(SearcherConformance):
    searcher = OptunaGPSearch


def test_after_ten_trials_the_model_finds_the_best_configuration() -> None:
    searcher = OptunaGPSearch(space=small_space(), metric="score", mode="max", seed=1)
    suggested = drive(searcher, [f"t{i}" for i in range(14)])
    best = max(objective(small_space().decode(i)) for i in range(12))
    assert max(map(objective, suggested[10:])) == best
