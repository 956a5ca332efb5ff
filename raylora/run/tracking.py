"""Trackers of a run: told of it from threads of their own, so that one that is slow or down never holds up a search."""

from __future__ import annotations

import inspect
import json
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from raylora.errors import UserError
from raylora.run.trackers import TRACKERS, Tracker
from raylora.spec import Spec
from raylora.spec.text import choose
from trainables.journal import Journal

# How long a run that has come to its end waits for a tracker that is not done.
PATIENCE_S = 60.0

Say = Callable[[str], None]


def make_trackers(spec: Spec) -> list[Tracker]:
    """The trackers that `track` names, with their options.

    Raises:
        UserError: an unknown name or option, or a tracker whose package is not installed.
    """
    made = []
    for entry in spec.track:
        name, options = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
        if name not in TRACKERS:
            names = TRACKERS.names()
            raise UserError(
                f"track = {name!r}: no such tracker; {choose(name, names)}", field="track", value=name, allowed=names
            )
        try:
            cls = TRACKERS[name]
        except ValueError as error:  # a plug-in that does not load
            raise UserError(f"track = {name!r}: {error}", field="track", value=name) from None
        known = list(inspect.signature(cls).parameters)
        for option in options:
            if option not in known:
                raise UserError(
                    f"track.{name}.{option}: {name} has no such option; {choose(option, sorted(known))}",
                    field=f"track.{name}.{option}",
                    allowed=sorted(known),
                )
        if not cls.installed():
            raise UserError(
                f"track = {name!r}: {cls.package} is not installed; pip install 'raylora[trackers]'",
                field="track",
                value=name,
            )
        made.append(cls(**options))
    return made


class _Follower:
    """One tracker in a thread. What it raises is told once, and it is told of nothing more."""

    def __init__(self, tracker: Tracker, say: Say) -> None:
        self.tracker, self.say = tracker, say
        self.calls: queue.Queue[tuple[str, tuple[object, ...]] | None] = queue.Queue()
        self.thread = threading.Thread(target=self._work, name=f"tracker-{tracker.name}", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while (call := self.calls.get()) is not None:
            method, told = call
            try:
                getattr(self.tracker, method)(*told)
            except BaseException as error:  # whatever another package does, an exit among it
                first = (str(error).strip() or type(error).__name__).splitlines()[0]
                self.say(f"tracker {self.tracker.name}: {method} failed ({first}); the run goes on without it")
                return

    def tell(self, method: str, *told: object) -> None:
        self.calls.put((method, told))

    def close(self, patience_s: float) -> None:
        self.calls.put(None)
        self.thread.join(patience_s)
        if self.thread.is_alive():
            self.say(f"tracker {self.tracker.name}: not done after {patience_s:.0f} s; left behind")


class Tracking:
    """All trackers of a run."""

    def __init__(self, trackers: list[Tracker], folder: Path, spec: Spec, say: Say) -> None:
        self.followers = [_Follower(tracker, say) for tracker in trackers]
        told = json.loads(json.dumps(spec.to_dict()))
        self._tell("start", folder, told)

    def _tell(self, method: str, *told: object) -> None:
        for follower in self.followers:
            follower.tell(method, *told)

    def trial(self, row: Mapping[str, object]) -> None:
        """A trial has ended; see `Tracker.trial`."""
        self._tell("trial", row)

    def finish(self, summary: Mapping[str, object]) -> None:
        """The run has come to its end."""
        self._tell("finish", json.loads(json.dumps(summary)))

    def close(self, patience_s: float = PATIENCE_S) -> None:
        """Wait for what has been told, for so long at most."""
        for follower in self.followers:
            follower.close(patience_s)
        self.followers = []


def tracked_row(run_dir: str | Path, key: str) -> dict[str, object] | None:
    """What a tracker is told of a trial that has ended; None where it has not."""
    rows = [row for row in Journal(run_dir).rows() if row["key"] == key]
    end = next((row for row in rows if row["event"] in ("finish", "error")), None)
    if end is None:
        return None
    status = "failed" if end["event"] == "error" else "finished"
    if status == "finished":
        status = "diverged" if end.get("diverged") else "stopped" if end.get("stopped") else status
    reports = [row for row in rows if row["event"] == "report"]
    return {**end, "status": status, "reports": [*reports, *([end] if status != "failed" else [])]}
