from __future__ import annotations

import pytest

from searchers.optuna_gp import OptunaGPSearch
from searchers.optuna_sampler import OptunaSamplerSearch
from searchers.testing import SearcherConformance, drive, objective, small_space
from searchers.tpe import TPESearch


class TestTPESearch(SearcherConformance):
    searcher = TPESearch


@pytest.mark.parametrize("cls", [TPESearch, OptunaGPSearch])
def test_recorded_and_observed_values_reach_optuna(cls: type[OptunaSamplerSearch]) -> None:
    searcher = cls(space=small_space(), metric="score", mode="max", seed=0)
    searcher.record(small_space().decode(4), 0.5)
    searcher.record(small_space().decode(5), None)
    drive(searcher, ["a"])
    searcher.record(small_space().decode(6), 0.25)
    trials = searcher._inner()._ot_study.trials
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trials[0].value, trials[3].value] == [0.5, 0.25]
    space = small_space()
    params = trials[2].params
    assert trials[2].value == objective(space.decode(space.index(params[name] for name in space.names)))
