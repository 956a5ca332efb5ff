from __future__ import annotations

import pandas as pd
import pytest

from raylora.errors import UserError
from raylora.run.trials import best_trial, rank_trials, trial_table, with_both_alphas
from trainables.journal import Journal

CONFIG = {"variant": "lora", "rank": 4, "alpha_ratio": 2, "learning_rate": 1e-3}


@pytest.fixture
def book(tmp_path):
    """Books a trial: `book("a", accuracy=0.5, stopped=True)`; without an accuracy it is still running."""
    journal = Journal(tmp_path)

    def add(key: str, *, stopped: bool = False, message: str | None = None, **metrics: float) -> None:
        journal.append("start", key, config=CONFIG)
        if message is not None:
            journal.fail(key, CONFIG, message)
        elif metrics:
            journal.finish(key, CONFIG, metrics, stopped=stopped)

    return add


def test_a_runs_file_of_trials_spells_out_both_alphas(finished_run) -> None:
    trials = pd.read_csv(finished_run.folder / "trials.csv")
    assert len(trials) == 4 and trials["key"].is_unique
    assert set(trials["status"]) == {"finished"}
    assert (trials["alpha"] == trials["alpha_ratio"] * trials["rank"]).all()


def test_a_table_says_what_became_of_each_trial(book, tmp_path) -> None:
    book("a", accuracy=0.5)
    book("b", accuracy=0.1, stopped=True)
    book("c", accuracy=0.0, diverged=True)
    book("d", message="rank 512 is larger")
    book("e")
    table = trial_table(tmp_path)
    assert list(table["status"]) == ["finished", "stopped", "diverged", "failed", "unfinished"]
    assert list(table["accuracy"][:3]) == [0.5, 0.1, 0.0]
    assert not {"done", "diverged", "message", "event"} & set(table.columns)


def test_a_stopped_trial_is_best_only_where_nothing_ran_to_its_end(book, tmp_path) -> None:
    book("a", accuracy=0.9, stopped=True)
    assert best_trial(tmp_path, "accuracy", "max").key == "a"
    book("b", accuracy=0.5)
    assert best_trial(tmp_path, "accuracy", "max").key == "b"


def test_ties_go_to_the_lower_validation_loss(book, tmp_path) -> None:
    book("a", accuracy=0.5, validation_loss=2.0)
    book("b", accuracy=0.5, validation_loss=1.0)
    book("c", accuracy=0.5)
    assert best_trial(tmp_path, "accuracy", "max").key == "b"


def test_a_lucky_row_does_not_win_over_a_much_lower_loss(book, tmp_path) -> None:
    for key, accuracy, error, loss in (
        ("a", 0.0, 0.0, 3.1),
        ("b", 0.0, 0.0, 1.5),
        ("c", 1 / 48, 0.0206, 4.0),
        ("d", 0.0, 0.0, 2.9),
    ):
        book(key, accuracy=accuracy, accuracy_se=error, validation_loss=loss)
    assert [end.key for end in rank_trials(tmp_path, "accuracy", "max").ends][:2] == ["b", "d"]


def test_a_ranking_knows_how_sure_it_is_of_its_best(book, tmp_path) -> None:
    for key, rate, loss in (("a", 0.5, 2.0), ("b", 0.1, 1.0), ("c", 0.12, 1.1)):
        book(key, error_rate=rate, error_rate_se=0.02, validation_loss=loss)
    ranking = rank_trials(tmp_path, "error_rate", "min")
    assert ranking.best.key == "b"
    near, far = ranking.chance("c"), ranking.chance("a")
    assert near is not None and far is not None and 0.5 < near < 0.95 < far
    assert ranking.chance("b") is None and ranking.chance("z") is None


def test_without_errors_the_best_value_wins_and_nothing_is_said_of_chances(book, tmp_path) -> None:
    book("a", accuracy=0.5, validation_loss=1.0)
    book("b", accuracy=0.6, validation_loss=2.0)
    ranking = rank_trials(tmp_path, "accuracy", "max")
    assert ranking.best.key == "b" and ranking.chance("a") is None


def test_where_the_loss_is_the_objective_the_lowest_is_best(book, tmp_path) -> None:
    book("a", validation_loss=1.5, validation_loss_se=0.3)
    book("b", validation_loss=1.4, validation_loss_se=0.3)
    ranking = rank_trials(tmp_path, "validation_loss", "min")
    assert ranking.best.key == "b" and ranking.chance("a") is None


def test_a_metric_to_minimise_has_its_lowest_as_best(book, tmp_path) -> None:
    book("a", error_rate=0.5)
    book("b", error_rate=0.25)
    assert best_trial(tmp_path, "error_rate", "min").key == "b"


def test_without_a_result_the_first_failure_is_told(book, tmp_path) -> None:
    book("a", message="rank 512 is larger")
    with pytest.raises(UserError, match="none of the 1 trials has a result; the first failure was: rank 512") as caught:
        best_trial(tmp_path, "accuracy", "max")
    assert caught.value.field == "search.trials"


def test_without_a_result_or_a_failure_lower_rates_are_advised(book, tmp_path) -> None:
    book("a", accuracy=0.0, diverged=True)
    with pytest.raises(UserError, match="lower learning rates"):
        best_trial(tmp_path, "accuracy", "max")


def test_alpha_and_its_ratio_follow_from_each_other() -> None:
    assert with_both_alphas({"rank": 4, "alpha": 8})["alpha_ratio"] == 2
    assert with_both_alphas({"rank": 4, "alpha_ratio": 0.5})["alpha"] == 2
