"""What a tracker is: it is told of a run as it goes, and shows it elsewhere."""

from __future__ import annotations

import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

# Files of a run's folder that a tracker may keep as artefacts, as far as they are there when it has come to its end.
ARTEFACTS = ("summary.json", "best.yaml", "trials.csv", "report.html")
# What a journal's line holds beside metrics.
_TOLD = frozenset({"event", "key", "time", "config", "message", "stopped", "status", "reports"})


class Tracker(ABC):
    """Follows one run: `start`, then `trial` for each trial that has ended, then `finish`.

    The calls come one after the other, from one thread of the process that searches, in which nothing waits for them. A
    resumed run calls `start` again with the same folder, then `trial` for the trials that it still has to do; `finish`
    comes only where the run came to its end. What has to outlive an interruption, such as the id of a run on a server,
    is kept in a file of the folder (`remember`). A tracker that raises does not stop the run, so it need not guard
    itself: it is told of nothing more.

    The constructor takes the tracker's own options as keyword-only arguments.

    Attributes:
        name: what specs call it.
        summary: one line for lists.
        package: what it imports; `raylora[trackers]` brings it.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    package: ClassVar[str | None] = None

    @classmethod
    def installed(cls) -> bool:
        """Whether what it imports is there."""
        return cls.package is None or importlib.util.find_spec(cls.package) is not None

    @abstractmethod
    def start(self, folder: Path, spec: Mapping[str, object]) -> None:
        """The run begins or goes on.

        Args:
            folder: of the run; it exists.
            spec: the whole spec as plain JSON types, defaults included.
        """

    @abstractmethod
    def trial(self, row: Mapping[str, object]) -> None:
        """A trial has ended: its line of the journal, with `key`, `config` and, unless it failed, its metrics.

        `status` is finished, stopped, diverged or failed; `reports` holds the metrics of all its reports, in order.
        """

    @abstractmethod
    def finish(self, summary: Mapping[str, object]) -> None:
        """The run has come to its end: what `summary.json` holds."""


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a line or a report that are numbers."""
    return {
        name: float(value)
        for name, value in row.items()
        if name not in _TOLD and isinstance(value, int | float) and not isinstance(value, bool)
    }


def curve(row: Mapping[str, Any]) -> list[tuple[int, dict[str, float]]]:
    """The metrics over the samples seen, `(samples, metrics)` for each report of a trial."""
    reports = row.get("reports") or [row]
    return [(int(report.get("samples") or 0), numbers(report)) for report in reports if numbers(report)]


def results(summary: Mapping[str, Any]) -> dict[str, float]:
    """The scores of `summary.json` as `best/test`, `default/test_se`, ..."""
    found: dict[str, float] = {}
    for label in ("base", "default", "best"):
        entry = summary.get(label) or {}
        found |= {f"{label}/{name}": value for name, value in numbers(entry).items()}
    return found


def artefacts(folder: Path) -> list[Path]:
    """The files of the run that are there; the adapter is a folder beside them."""
    return [folder / name for name in ARTEFACTS if (folder / name).is_file()]


def remember(folder: Path, tracker: str, told: Mapping[str, str]) -> None:
    """Keep what has to outlive an interruption, such as ids."""
    (folder / f"tracker-{tracker}.json").write_text(json.dumps(dict(told), indent=2) + "\n")


def remembered(folder: Path, tracker: str) -> dict[str, str]:
    """What was kept; empty at the first start."""
    try:
        told = json.loads((folder / f"tracker-{tracker}.json").read_text())
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in told.items()}
