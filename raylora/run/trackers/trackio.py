"""Trackio: a database file on this machine, or a Space of the hub."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raylora.run.trackers.base import Tracker, artefacts, curve, results


class Trackio(Tracker):
    """A group for the run: in it a run for the search and one for each trial.

    Args:
        project: where the runs go.
        space: `ORG/NAME` of a Space of the hub; default: this machine alone.
    """

    name = "trackio"
    summary = "Trackio: a group with a run per trial, in a file of this machine or in a Space"
    package = "trackio"

    def __init__(self, *, project: str = "raylora", space: str | None = None) -> None:
        self.project, self.space = project, space

    def start(self, folder: Path, spec: Mapping[str, object]) -> None:
        self.folder = folder
        self.spec = dict(spec)

    @contextlib.contextmanager
    def _opened(self, name: str, config: Mapping[str, object]) -> Iterator[None]:
        """One run of Trackio's, open for the duration. What it prints is no answer of a command: to stderr with it."""
        import trackio

        with contextlib.redirect_stdout(sys.stderr):
            trackio.init(
                project=self.project,
                name=name,
                group=self.folder.name,
                config=dict(config),
                space_id=self.space,
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
            try:
                yield
            finally:
                trackio.finish()

    def trial(self, row: Mapping[str, Any]) -> None:
        import trackio

        failed = row.get("status") == "failed"
        with self._opened(f"{self.folder.name}/trial-{row['key']}", {**row["config"], "status": row.get("status")}):
            for samples, metrics in curve(row):
                trackio.log(metrics, step=samples)
            # A run without any number is not kept.
            trackio.log({"failed": float(failed)})

    def finish(self, summary: Mapping[str, object]) -> None:
        import trackio

        with self._opened(self.folder.name, self.spec):
            trackio.log(results(summary))
            for file in artefacts(self.folder):
                trackio.log_artifact(file, name=f"{self.folder.name}-{file.name}", type="run")
            if (self.folder / "adapter").is_dir():
                trackio.log_artifact(self.folder / "adapter", name=f"{self.folder.name}-adapter", type="model")
