from __future__ import annotations

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from trainables.recipe import RecipeJob, RecipeResult, run_recipe

KNOBS = {"variant": "lora", "rank": 2, "alpha_ratio": 2, "learning_rate": 1e-3, "batch_size": 4, "dropout": 0.0}


@pytest.fixture
def job(setup, tmp_path) -> RecipeJob:
    rows = setup.validation[:4]
    return RecipeJob(str(tmp_path / "final"), {"test": rows}, KNOBS, setup.train, samples=8, base_name="org/base")


def test_a_result_survives_as_a_row_of_the_journal() -> None:
    result = RecipeResult({"loss": 1.5, "step": 2}, {"test": {"accuracy": 0.5}, "validation": {"accuracy": None}})
    assert RecipeResult.from_row(json.loads(json.dumps(result.to_row()))) == result


def test_the_untouched_model_is_scored_and_nothing_is_trained(setup, job, loaded, tmp_path) -> None:
    result = run_recipe(replace(job, knobs=None), setup, *loaded)
    assert result.metrics == {} and result.scores["test"]["validation_loss"] > 0
    assert [path.name for path in (tmp_path / "final").iterdir()] == ["test.parquet"]
    assert pq.read_table(tmp_path / "final" / "test.parquet").num_rows == 4


def test_a_recipe_leaves_an_adapter_that_names_its_base(setup, job, loaded, tmp_path) -> None:
    result = run_recipe(job, setup, *loaded)
    assert result.metrics["samples"] == 8 and "accuracy" in result.scores["test"]
    config = json.loads((tmp_path / "final" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/base" and config["r"] == 2


def test_one_that_diverges_gets_the_worst_scores(setup, job, loaded) -> None:
    result = run_recipe(replace(job, knobs={**KNOBS, "learning_rate": 1e30}), setup, *loaded)
    assert result.metrics["diverged"] and result.scores == {"test": {"accuracy": 0.0}}


def test_past_its_deadline_it_is_scored_as_it_is(setup, job, loaded) -> None:
    result = run_recipe(replace(job, deadline=0.0), setup, *loaded)
    assert result.metrics["samples"] == 0 and "accuracy" in result.scores["test"]
