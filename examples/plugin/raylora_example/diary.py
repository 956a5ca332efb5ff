"""A tracker: a line of text for whatever happens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylora.run.trackers import Tracker


class Diary(Tracker):
    """Writes `diary.txt` into the run's folder; a resumed run goes on with it."""

    name = "diary"
    summary = "a line per trial in the run's folder"

    def start(self, folder: Path, spec: Mapping[str, Any]) -> None:
        self.file = folder / "diary.txt"
        self._write(f"{spec['task']['name']} on {spec['model']}")

    def trial(self, row: Mapping[str, Any]) -> None:
        self._write(json.dumps(row["config"], sort_keys=True))

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._write(f"{summary['trials']} trials")

    def _write(self, line: str) -> None:
        with self.file.open("a", encoding="utf-8") as diary:
            diary.write(line + "\n")
