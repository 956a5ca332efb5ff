"""Weights & Biases, online or offline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from raylora.run.trackers.base import Tracker, artefacts, curve, remember, remembered, results


class Wandb(Tracker):
    """A group for the run: in it a run for the search and one for each trial; the adapter is an artefact.

    Args:
        project: where the runs go.
        entity: user or team; default: the account's own.
        mode: `online`, `offline` (files in the run's folder, for `wandb sync`) or `disabled`; default: `WANDB_MODE`,
            or else online.
    """

    name = "wandb"
    summary = "Weights & Biases: a group with a run per trial, online or offline"
    package = "wandb"

    def __init__(
        self,
        *,
        project: str = "raylora",
        entity: str | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
    ) -> None:
        self.project, self.entity, self.mode = project, entity, mode

    def start(self, folder: Path, spec: Mapping[str, Any]) -> None:
        self.folder = folder
        self.spec = spec
        self.run = remembered(folder, self.name).get("run") or uuid4().hex[:8]
        remember(folder, self.name, {"run": self.run})
        self._search().finish()

    def _search(self) -> Any:
        """The search's run: open for a moment at either end, since a run of a killed process would stay in use."""
        return self._open(self.folder.name, "search", self.spec, id=self.run, resume="allow")

    def _open(self, name: str, kind: str, config: Mapping[str, Any], **more: Any) -> Any:
        import wandb

        return wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.folder.name,
            name=name,
            job_type=kind,
            config=dict(config),
            dir=str(self.folder),
            mode=self.mode,
            settings=wandb.Settings(silent=True, console="off"),
            **more,
        )

    def trial(self, row: Mapping[str, Any]) -> None:
        run = self._open(f"trial-{row['key']}", "trial", row["config"], tags=[str(row.get("status"))])
        for samples, metrics in curve(row):
            run.log(metrics, step=samples)
        run.finish(exit_code=1 if row.get("status") == "failed" else 0)

    def finish(self, summary: Mapping[str, Any]) -> None:
        import wandb

        run = self._search()
        run.summary.update(results(summary))
        kept = wandb.Artifact(re.sub(r"[^\w.-]", "-", self.folder.name), type="model")
        for file in artefacts(self.folder):
            kept.add_file(str(file))
        if (self.folder / "adapter").is_dir():
            kept.add_dir(str(self.folder / "adapter"), name="adapter")
        run.log_artifact(kept)
        run.finish()
