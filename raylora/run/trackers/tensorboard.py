"""TensorBoard's files in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from raylora.run.trackers.base import Tracker, curve, numbers, results


class Tensorboard(Tracker):
    """A run of TensorBoard for each trial, with its curves and its knobs (the HPARAMS tab), and `search` for the whole.

    Args:
        folder: of all runs; the run's name is added. Default: `tensorboard` in the run's folder.
    """

    name = "tensorboard"
    summary = "event files in the run's folder: curves, knobs against results"
    package = "tensorboardX"

    def __init__(self, *, folder: str | None = None) -> None:
        self.place = folder

    def start(self, folder: Path, spec: Mapping[str, object]) -> None:
        self.root = Path(self.place).expanduser() / folder.name if self.place else folder / "tensorboard"
        with self._writer("search") as writer:
            writer.add_text("spec", f"```json\n{json.dumps(spec, indent=2)}\n```")

    def _writer(self, run: str) -> Any:
        from tensorboardX import SummaryWriter

        # Files are named by the second: a resumed run may open two in one.
        return SummaryWriter(str(self.root / run), filename_suffix=f".{uuid4().hex[:8]}")

    def trial(self, row: Mapping[str, Any]) -> None:
        from tensorboardX.summary import hparams

        knobs = {name: value for name, value in row["config"].items() if isinstance(value, bool | int | float | str)}
        with self._writer(f"trial-{row['key']}") as writer:
            for samples, metrics in curve(row):
                for name, value in metrics.items():
                    writer.add_scalar(name, value, samples)
            final = {f"final/{name}": value for name, value in numbers(row).items()}
            # As `add_hparams` does, which would open a second file of the same name.
            for part in hparams(knobs, final):
                writer.file_writer.add_summary(part)
            for name, value in final.items():
                writer.add_scalar(name, value)

    def finish(self, summary: Mapping[str, object]) -> None:
        with self._writer("search") as writer:
            for name, value in results(summary).items():
                writer.add_scalar(name, value)
            writer.add_text("summary", f"```json\n{json.dumps(summary, indent=2)}\n```")
