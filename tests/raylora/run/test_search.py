from __future__ import annotations

import pandas as pd


def test_tunes_analysis_opens_a_runs_folder(finished_run) -> None:
    from ray.tune import ExperimentAnalysis

    analysis = ExperimentAnalysis(str(finished_run.folder), default_metric="accuracy", default_mode="max")
    assert len(analysis.dataframe()) == 4
    assert analysis.best_config["rank"] in (2, 4)


def test_tunes_tuner_restores_a_runs_results(finished_run) -> None:
    from ray import tune

    from trainables.hosted import HostedTrial

    restored = tune.Tuner.restore(str(finished_run.folder), trainable=HostedTrial)
    frame = restored.get_results().get_dataframe()
    trials = pd.read_csv(finished_run.folder / "trials.csv")
    assert sorted(frame["accuracy"]) == sorted(trials["accuracy"])


def test_every_trial_leaves_its_logs(finished_run) -> None:
    assert len(list(finished_run.folder.glob("trial_*/progress.csv"))) == 4
    assert len(list(finished_run.folder.glob("trial_*/events.out.tfevents*"))) == 4
