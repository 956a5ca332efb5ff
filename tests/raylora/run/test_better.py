from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from raylora.run.better import how_sure, in_words
from raylora.run.trials import Ranking, rank_trials
from trainables.journal import Journal


def ranking(folder: Path, **accuracies: float) -> Ranking:
    """Of trials whose keys are the names, with an error of 0.02 each; lower losses go with higher accuracies."""
    for key, accuracy in accuracies.items():
        metrics = {"accuracy": accuracy, "accuracy_se": 0.02, "validation_loss": 2 - accuracy}
        Journal(folder).finish(key, {"rank": key}, metrics)
    return rank_trials(folder, "accuracy", "max")


def outcome(best: float, default: float) -> dict[str, Any]:
    return {name: {"test": test, "test_se": 0.03} for name, test in (("best", best), ("default", default))}


def answers(folder: Path, label: str, scores: list[float]) -> None:
    place = folder / "final" / label
    place.mkdir(parents=True)
    rows = range(len(scores))
    table = {"row": rows, "prompt": "p", "answer": "a", "completion": "c", "score": scores}
    pd.DataFrame(table).to_parquet(place / "test.parquet")


def test_against_the_default_recipe_it_is_what_test_says(tmp_path) -> None:
    found = how_sure(tmp_path, outcome(0.4, 0.3), "max", 1, ranking(tmp_path, a=0.5, b=0.48, d=0.9), "b")
    # 0.1 over the two errors, 0.03 sqrt(2).
    assert found["default"] == pytest.approx(0.9908, abs=1e-3)
    assert how_sure(tmp_path, outcome(0.4, 0.3), "min", 1, ranking(tmp_path), "b")["default"] < 0.01


def test_answers_to_the_same_rows_are_held_against_each_other(tmp_path) -> None:
    answers(tmp_path, "best-0", [1.0] * 40 + [0.0] * 60)
    answers(tmp_path, "default-0", [1.0] * 36 + [0.0] * 64)
    trials = ranking(tmp_path, a=0.5, b=0.4)
    paired = how_sure(tmp_path, outcome(0.40, 0.36), "max", 1, trials, "b")["default"]
    assert paired > how_sure(tmp_path, outcome(0.40, 0.36), "max", 2, trials, "b")["default"]


def test_without_a_final_stage_the_trials_tell(tmp_path) -> None:
    alone = {"best": {"config": {}, "validation": 0.5}}
    found = how_sure(tmp_path, alone, "max", 1, ranking(tmp_path, a=0.5, b=0.48, c=0.1), "c")
    assert 0.5 < found["runner_up"] < found["default"]


def test_a_default_recipe_that_is_the_best_is_not_compared_with_itself(tmp_path) -> None:
    found = how_sure(tmp_path, outcome(0.4, 0.4), "max", 1, ranking(tmp_path, a=0.5, b=0.2), "a")
    assert set(found) == {"runner_up"}


def test_nothing_is_said_of_a_single_trial(tmp_path) -> None:
    alone = {"best": {"config": {}, "validation": 0.5}}
    assert how_sure(tmp_path, alone, "max", 1, ranking(tmp_path, a=0.5), "z") == {}


@pytest.mark.parametrize(
    ("better", "told"),
    [
        (
            {"runner_up": 0.61, "default": 0.93},
            "better than the default recipe with probability 0.93, than the runner-up 0.61",
        ),
        (
            {"default": 0.9999, "runner_up": 0.5},
            "better than the default recipe with probability over 0.99, than the runner-up 0.50",
        ),
        ({"runner_up": 0.001}, "better than the runner-up with probability below 0.01"),
        ({}, ""),
    ],
)
def test_the_probabilities_are_told_in_a_line(better: dict[str, float], told: str) -> None:
    assert in_words(better) == told
