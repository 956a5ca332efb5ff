from __future__ import annotations

import numpy as np
import pytest

from raylora.reports.page.belief import belief_rows, surrogate_of
from raylora.reports.page.facts import read_facts


def test_predictions_from_the_others_follow_what_was_observed(make_run) -> None:
    rows = belief_rows(read_facts(make_run("believed", trials=60, searcher="gp")))
    assert len(rows) == 39  # those that ran to their end
    observed, predicted = ([row[name] for row in rows] for name in ("observed", "predicted"))
    assert np.corrcoef(observed, predicted)[0, 1] > 0.6
    inside = [row["low"] <= row["observed"] <= row["high"] for row in rows]
    assert sum(inside) / len(inside) > 0.8


def test_a_searcher_without_a_model_believes_nothing(long_run) -> None:
    run = read_facts(long_run)
    assert surrogate_of(run) == "" and belief_rows(run) == []


@pytest.mark.parametrize("searcher", ["latent", "language", "optuna_gp"])
def test_each_searcher_with_a_model_names_it_and_predicts(make_run, searcher: str) -> None:
    run = read_facts(make_run(searcher, trials=20, searcher=searcher))
    assert "Gaussian process" in surrogate_of(run)
    assert belief_rows(run)


def test_a_searcher_that_is_not_here_believes_nothing(long_run) -> None:
    run = read_facts(long_run)
    run.spec.search.searcher = "gone"
    assert surrogate_of(run) == "" and belief_rows(run) == []


def test_few_trials_are_no_ground_for_belief(make_run) -> None:
    assert belief_rows(read_facts(make_run("few", trials=5, searcher="gp"))) == []
