from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raylora.errors import UserError
from raylora.run.earlier import read_source
from trainables.journal import Journal

CONFIG = {"variant": "lora", "rank": 2, "alpha_ratio": 1, "learning_rate": 1e-3, "batch_size": 4, "dropout": 0}


@pytest.fixture
def make_run(write_spec, tmp_path):
    """A run's folder with the trials `(learning rate, fields of its last line)`."""

    def make(*trials: tuple[float, dict[str, Any]], **changes: Any) -> Path:
        folder = tmp_path / "earlier"
        folder.mkdir()
        write_spec(**changes).rename(folder / "spec.yaml")
        (folder / ".raylora").write_text("raylora\n")
        for rate, end in trials:
            config = {**CONFIG, "learning_rate": rate}
            Journal(folder).append("start", str(rate), config=config)
            Journal(folder).append("finish", str(rate), config=config, **end)
        return folder

    return make


def finished(accuracy: float | None, **more: Any) -> dict[str, Any]:
    return {"accuracy": accuracy, "samples": 24, "stopped": False, **more}


def test_a_runs_whole_trials_are_read_with_their_samples(make_run) -> None:
    trials = (1e-3, finished(0.5)), (2e-3, finished(0.7)), (3e-3, finished(0.1, stopped=True)), (4e-3, finished(None))
    source = read_source("search.learn_from", str(make_run(*trials)))
    assert source["name"] == "earlier" and source["values"] == [0.5, 0.7] and source["samples"] == 24
    assert [config["learning_rate"] for config in source["configs"]] == [1e-3, 2e-3]


def test_a_run_whose_scores_are_all_the_same_teaches_by_its_losses(make_run) -> None:
    trials = [
        (rate, finished(0.0, accuracy_se=0.0, validation_loss=loss)) for rate, loss in ((1, 3.0), (2, 2.0), (3, 4.0))
    ]
    values = read_source("search.learn_from", str(make_run(*trials)))["values"]
    assert values[1] > values[0] > values[2]


def test_a_run_whose_task_has_a_seed_of_its_own_is_read(make_run) -> None:
    task = {"name": "reasoning_gym/chain_sum", "train_rows": 20, "validation_rows": 4, "options": {"seed": 5}}
    folder = make_run((1e-3, finished(0.5)), (2e-3, finished(0.7)), task=task)
    assert read_source("search.learn_from", str(folder))["values"] == [0.5, 0.7]


def test_too_few_results_are_refused(make_run) -> None:
    with pytest.raises(UserError, match="has 1 results; allowed: two or more"):
        read_source("search.learn_from", str(make_run((1e-3, finished(0.5)))))


def test_a_folder_that_is_no_run_names_the_field(tmp_path) -> None:
    with pytest.raises(UserError, match=r"^search\.learn_from: .* holds no spec\.yaml") as caught:
        read_source("search.learn_from", str(tmp_path))
    assert caught.value.field == "search.learn_from"


def test_a_grids_file_is_read(tmp_path) -> None:
    grid = tmp_path / "grid.csv"
    grid.write_text("rank,accuracy\n2,0.25\n4,0.5\n")
    grid.with_suffix(".json").write_text(json.dumps({"fixed": {"train_samples": 8, "epochs": 2}}))
    source = read_source("search.learn_from", str(grid))
    assert source["values"] == [0.25, 0.5] and source["samples"] == 16
    assert [config["rank"] for config in source["configs"]] == [2, 4]


def test_a_missing_file_says_that_a_runs_folder_would_do_too() -> None:
    with pytest.raises(UserError, match=r"^search\.learn_from: 'no\.csv': no such file; .* or a run's folder$"):
        read_source("search.learn_from", "no.csv")
