"""What a tracker is: it is told of a run as it goes, and shows it elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar


class Tracker(ABC):
    """Follows one run: `start`, then `trial` for each trial that has ended, then `finish`.

    The calls come one after the other, from the process that searches. A resumed run calls `start` again with the same
    folder, then `trial` for the trials that it still has to do; `finish` comes only where the run came to its end. What
    has to outlive an interruption, such as the id of a run on a server, is kept in a file of the folder. A tracker that
    raises does not stop the run, so it need not guard itself; it must return soon, because the search waits for it.

    The constructor takes the tracker's own options as keyword-only arguments.

    Attributes:
        name: what specs call it.
        summary: one line for lists.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""

    @abstractmethod
    def start(self, folder: Path, spec: Mapping[str, Any]) -> None:
        """The run begins or goes on.

        Args:
            folder: of the run; it exists.
            spec: the whole spec as plain JSON types, defaults included.
        """

    @abstractmethod
    def trial(self, row: Mapping[str, Any]) -> None:
        """A trial has ended: its line of the journal, with `key`, `config` and, unless it failed, its metrics."""

    @abstractmethod
    def finish(self, summary: Mapping[str, Any]) -> None:
        """The run has come to its end: what `summary.json` holds."""
