"""Run folders of an earlier layout of the code, one finished and one killed in mid-trial, are at home here."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from raylora.curvature.figures import read_figures
from raylora.reports.compare import read_records
from raylora.reports.sweep import read_sweep
from raylora.run import experiment
from raylora.run.earlier import read_source
from raylora.run.export import export
from raylora.run.folder import read_run
from raylora.run.trials import best_trial, trial_table
from trainables.journal import Journal

SWEEPS = Path(__file__).resolve().parents[3] / "docs" / "sweeps"


@pytest.mark.parametrize(("name", "trials"), [("finished", 3), ("interrupted", 4)])
def test_it_opens(old_run, name, trials) -> None:
    folder, spec = read_run(old_run(name))
    assert folder.name == name
    assert (spec.version, spec.search.trials) == (1, trials)


def test_the_longest_row_that_was_a_default_is_one_still(old_run) -> None:
    assert read_run(old_run("finished"))[1].task.max_length is None


def test_its_trials_are_those_of_its_own_table(old_run) -> None:
    run = old_run("finished")
    pd.testing.assert_frame_equal(trial_table(run), pd.read_csv(run / "trials.csv"), check_dtype=False)


def test_an_unfinished_trial_is_listed_as_one(old_run) -> None:
    assert list(trial_table(old_run("interrupted"))["status"]) == ["finished", "finished", "unfinished"]


def test_its_best_trial_is_that_of_its_summary(old_run) -> None:
    run = old_run("finished")
    config = json.loads((run / "summary.json").read_text())["best"]["config"]
    assert best_trial(run, "accuracy", "max").config.items() <= config.items()


@pytest.mark.parametrize("merge", [False, True], ids=["adapter", "merged"])
def test_it_exports(old_run, tmp_path, merge) -> None:
    target = export(old_run("finished"), tmp_path / "out", merge=merge)
    assert (target / ("model.safetensors" if merge else "adapter_model.safetensors")).is_file()


@pytest.mark.parametrize(("name", "trials"), [("finished", 3), ("interrupted", 2)])
def test_it_is_reported(old_run, name, trials) -> None:
    sweep = read_sweep(old_run(name))
    assert len(sweep.runs) == trials
    assert all({"accuracy", "accuracy_se", "validation_loss"} <= set(run) for run in sweep.runs)


@pytest.mark.parametrize(("name", "trials"), [("finished", 3), ("interrupted", 2)])
def test_it_is_learned_from(old_run, name, trials) -> None:
    source = read_source("search.learn_from", str(old_run(name)))
    assert len(source["configs"]) == len(source["values"]) == trials


def test_recorded_sweeps_are_read() -> None:
    assert len(read_sweep(SWEEPS / "learning_rates.records.json").runs) > 1
    assert len(read_records(SWEEPS / "lelora.records.json")) > 1


def test_recorded_figures_of_curvature_are_read() -> None:
    assert len(read_figures(SWEEPS / "curvature.json")["variants"]) > 1


def test_a_finished_one_is_answered_without_training(old_run, ray_local) -> None:
    run = old_run("finished")
    before, rows = json.loads((run / "summary.json").read_text()), len(Journal(run).rows())
    files = {path.relative_to(run) for path in run.rglob("*") if path.is_file()}
    summary = experiment.resume(run, quiet=True)
    assert {name: summary[name] for name in ("base", "default", "best")} == {
        name: before[name] for name in ("base", "default", "best")
    }
    assert len(Journal(run).rows()) == rows
    assert files <= {path.relative_to(run) for path in run.rglob("*") if path.is_file()}


def test_an_interrupted_one_goes_on_from_its_checkpoint(old_run, ray_local, capsys) -> None:
    run = old_run("interrupted")
    (running,) = set(Journal(run).started()) - set(Journal(run).concluded())
    experiment.resume(run)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("searcher: ")]
    assert told == ["searcher: rebuilt from the journal, since searcher.pkl has no searcher.json"]
    going_on = [row for row in Journal(run).rows() if row["event"] == "continue"]
    assert [(row["key"], row["from_step"]) for row in going_on] == [(running, 75)]
    starts = [row["key"] for row in Journal(run).rows() if row["event"] == "start"]
    assert len(starts) == len(set(starts))
    assert set(trial_table(run)["status"]) == {"finished"}
    assert len(list(run.glob("trial_*"))) == 4
