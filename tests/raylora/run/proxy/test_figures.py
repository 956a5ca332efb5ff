"""Figures of a measurement whose journals are written here."""

from __future__ import annotations

import json

import pytest

from raylora.run.proxy.figures import figures
from raylora.run.proxy.record import Part, Record
from trainables.journal import Journal, trial_key

PARTS = [Part("random", 0.1), Part("random", 1.0)]


@pytest.fixture
def measured(tmp_path):
    """Write what each recipe came to, on a part and on all rows; None for one that failed. Returns the figures."""

    def make(part: list[float | None], whole: list[float | None], mode: str = "max", losses: list[float] | None = None):
        recipes = [{"rank": 2**i, "alpha_ratio": 1} for i in range(len(part))]
        for one, scores in zip(PARTS, (part, whole), strict=True):
            journal = Journal(tmp_path / one.name)
            journal.path.parent.mkdir()
            for i, (recipe, score) in enumerate(zip(recipes, scores, strict=True)):
                if score is None:
                    journal.fail(trial_key(recipe), recipe, "no room", "infeasible")
                    continue
                loss = 1.0 if losses is None else losses[i]
                spent = {"train_s": 8.0 * one.fraction, "eval_s": 2.0}
                journal.finish(trial_key(recipe), recipe, {"accuracy": score, "validation_loss": loss, **spent})
        sizes = {"random-0.1": {"rows": 10, "samples": 10}, "random-1": {"rows": 100, "samples": 100}}
        found = figures(tmp_path, Record("accuracy", mode, 100, 99, recipes, sizes), PARTS, recipes)
        return json.loads(json.dumps(found))

    return make


def test_scores_that_rise_together_are_correlated_within_an_interval(measured) -> None:
    (one,) = measured([0.1, 0.2, 0.3, 0.35, 0.5], [0.2, 0.3, 0.5, 0.4, 0.9])["proxies"]
    for name, value in (("pearson", 0.9335), ("spearman", 0.9)):
        assert one[name]["value"] == pytest.approx(value, abs=1e-3)
        assert -1 <= one[name]["low"] <= one[name]["value"] <= one[name]["high"] <= 1
    assert (one["rows"], one["samples"], one["recipes"]) == (10, 10, 5)
    assert one["time"] == pytest.approx(2.8 / 10)


def test_regret_is_what_choosing_by_the_part_costs_on_all_rows(measured) -> None:
    found = measured([0.1, 0.4, 0.3], [0.2, 0.5, 0.8])
    (one,) = found["proxies"]
    assert one["regret"] == pytest.approx(0.3) and one["chosen"] == {"rank": 2, "alpha_ratio": 1, "alpha": 2}
    assert found["chance"] == pytest.approx(0.3)


def test_where_lower_is_better_the_lowest_is_chosen(measured) -> None:
    (one,) = measured([0.1, 0.4, 0.3], [0.5, 0.2, 0.8], mode="min")["proxies"]
    assert one["regret"] == pytest.approx(0.3) and one["chosen"]["rank"] == 1


def test_a_part_on_which_all_score_alike_has_no_correlation_and_chooses_by_loss(measured) -> None:
    (one,) = measured([0.0, 0.0, 0.0], [0.2, 0.5, 0.8], losses=[3.0, 1.0, 2.0])["proxies"]
    assert one["pearson"] is None and one["spearman"] is None
    assert one["chosen"]["rank"] == 2 and one["regret"] == pytest.approx(0.3)


def test_a_recipe_that_failed_on_either_is_left_out(measured) -> None:
    found = measured([0.1, None, 0.3, 0.5], [0.2, 0.9, 0.4, 0.6])
    assert found["proxies"][0]["recipes"] == 3 and found["proxies"][0]["regret"] == 0
    assert found["recipes"][1]["status"] == {"random-0.1": "infeasible", "random-1": "finished"}


def test_nothing_is_told_of_a_part_where_all_failed(measured) -> None:
    (one,) = measured([None, None, None], [0.2, 0.5, 0.8])["proxies"]
    assert (one["recipes"], one["regret"], one["spearman"]) == (0, None, None)
