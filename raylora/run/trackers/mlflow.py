"""MLflow: a server, a database or a folder of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylora.run.trackers.base import Tracker, artefacts, curve, remember, remembered, results

# Of a parameter's text in MLflow.
_LONGEST = 6000


class Mlflow(Tracker):
    """A run for the search with a child for each trial; the adapter and the run's files are its artefacts.

    Args:
        uri: of the tracking server, or such as `sqlite:///mlflow.db`. Default: `MLFLOW_TRACKING_URI`, or else
            `mlflow.db` beside the run's folder.
        experiment: its name; made where it is not there.
    """

    name = "mlflow"
    summary = "MLflow: a run with a child per trial, on a server or in a database file"
    package = "mlflow"

    def __init__(self, *, uri: str | None = None, experiment: str = "raylora") -> None:
        self.uri, self.experiment = uri, experiment

    def start(self, folder: Path, spec: Mapping[str, object]) -> None:
        import os

        from mlflow.tracking import MlflowClient

        self.folder = folder
        beside = f"sqlite:///{folder.parent / 'mlflow.db'}"
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI") or beside
        self.client = MlflowClient(tracking_uri=uri)
        found = self.client.get_experiment_by_name(self.experiment)
        # A database has no place for files of its own: beside it, not in the working directory.
        files = str(folder.parent / "mlartifacts") if uri.startswith("sqlite:") else None
        self.home = found.experiment_id if found else self.client.create_experiment(self.experiment, files)
        kept = remembered(folder, self.name)
        if kept.get("uri") == uri:
            self.run = kept["run"]
            self.client.set_terminated(self.run, "RUNNING")
            return
        self.run = self.client.create_run(self.home, run_name=folder.name).info.run_id
        remember(folder, self.name, {"uri": uri, "run": self.run})
        for name, value in _flat(spec).items():
            self.client.log_param(self.run, name, str(value)[:_LONGEST])

    def trial(self, row: Mapping[str, Any]) -> None:
        tags = {"mlflow.parentRunId": self.run, "status": str(row.get("status"))}
        child = self.client.create_run(self.home, run_name=f"trial-{row['key']}", tags=tags).info.run_id
        for name, value in row["config"].items():
            self.client.log_param(child, name, value)
        for samples, metrics in curve(row):
            for name, value in metrics.items():
                self.client.log_metric(child, name, value, step=samples)
        self.client.set_terminated(child, "FAILED" if row.get("status") == "failed" else "FINISHED")

    def finish(self, summary: Mapping[str, object]) -> None:
        for name, value in results(summary).items():
            self.client.log_metric(self.run, name, value)
        for file in artefacts(self.folder):
            self.client.log_artifact(self.run, str(file))
        if (self.folder / "adapter").is_dir():
            self.client.log_artifacts(self.run, str(self.folder / "adapter"), "adapter")
        self.client.set_terminated(self.run)


def _flat(part: Mapping[str, object], before: str = "") -> dict[str, object]:
    """Dotted names of what is set."""
    found: dict[str, object] = {}
    for name, value in part.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name}.")
        elif value is not None:
            found[f"{before}{name}"] = value
    return found
