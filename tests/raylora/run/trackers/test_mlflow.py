from __future__ import annotations

import pytest

from raylora.run.trackers.mlflow import Mlflow

pytestmark = pytest.mark.real
mlflow = pytest.importorskip("mlflow")


def test_a_run_with_a_child_per_trial_is_read_back_from_the_database(tell, folder, tmp_path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tell(lambda: Mlflow(uri=uri))
    client = mlflow.tracking.MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("raylora").experiment_id])
    named = {run.info.run_name: run for run in runs}
    assert set(named) == {"sums", "trial-00aa", "trial-00bb"}, "an interrupted run goes on as itself"
    parent, child, failed = named["sums"], named["trial-00aa"], named["trial-00bb"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id == failed.data.tags["mlflow.parentRunId"]
    assert child.data.params == {"variant": "lora", "rank": "4", "learning_rate": "0.001"}
    history = client.get_metric_history(child.info.run_id, "accuracy")
    assert [(point.step, point.value) for point in history] == [(16, 0.25), (32, 0.5)]
    assert (parent.info.status, child.info.status, failed.info.status) == ("FINISHED", "FINISHED", "FAILED")
    assert parent.data.metrics["best/test"] == 0.4 and parent.data.params["task.path"] == "rows.jsonl"
    kept = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"adapter", "summary.json", "report.html"} <= kept
