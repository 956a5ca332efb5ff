"""`trials.jsonl`: the record that decides what has happened in a run.

One JSON object a line, appended under a file lock and fsynced before the writer goes on. Events:

- `journal`: the first line of a file: its `version`. A file without one has version 1.
- `start`: a configuration begins training (`key`, `config`, `trial_id`, `host`).
- `continue`: training that something interrupted goes on, from optimizer step `from_step`.
- `report`: the metrics of a report before the last.
- `finish`: the trial is over; carries its metrics, those of its last report. `stopped: true` when a scheduler ended it
  early, `diverged: true` when its loss became non-finite.
- `error`: the trial failed with `message`; it is not tried again. `kind` says whether it is `infeasible` (it cannot be
  had on this model or machine) or `failed`.
- `final`: a job of the final stage is done (`label`, `result`).
- `request`: what somebody asked of the search while it ran, and what came of it (see `raylora.run.requests`).

A trial is finished once its `finish` line is on disk. Tune's own snapshots are periodic and may be older.

Of a run in an object store each line is an object below `journal/` instead (see `trainables.store`), put before the
writer goes on, and the order is that of the writers' clocks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.store import store_of

OBJECTS = "journal"
"""Where the journal of a run in a store lies."""

ERRORS = "errors.log"
"""Beside the journal: the tracebacks of trials that failed."""

VERSION = 1
"""Of the file's form. A file of a higher one is not read: what its lines mean is not known here."""

Knobs = Mapping[str, Any]
"""A configuration: knob -> value (text, a number, a truth value, a list of matrix types)."""

Metrics = Mapping[str, float | None]
"""What a trial reports, by name; see `trainables.run.Figures` and `evaluate_model`. None where it was not finite."""


@dataclass(frozen=True)
class Start:
    """A configuration that began training."""

    key: str
    config: Knobs
    trial_id: str = ""
    host: str = ""


@dataclass(frozen=True)
class Ending:
    """How a trial ended: what its `finish` or `error` line says.

    Attributes:
        metrics: of its last report; empty where it failed, or was stopped before any.
        time: of the line, seconds since the epoch.
        message: why it failed; None where it did not.
        kind: `infeasible` or `failed`; "" where it did not fail.
        stopped: whether a scheduler ended it before its budget was used.
    """

    key: str
    config: Knobs
    metrics: Metrics = field(default_factory=dict)
    time: float = 0.0
    message: str | None = None
    stopped: bool = False
    kind: str = ""

    @property
    def failed(self) -> bool:
        return self.message is not None

    @property
    def diverged(self) -> bool:
        return bool(self.metrics.get("diverged"))

    def replay(self, worst: Metrics) -> Metrics:
        """The last report once more, as a trial that is answered from the journal gives it to Tune.

        Args:
            worst: what a trial that failed is given, `{metric: value}`.
        """
        if self.failed:
            return {**worst, "failed": True, "done": True, "replayed": True}
        return {**self.metrics, "stopped": self.stopped, "done": True, "replayed": True}


def log_traceback(run_dir: str | Path, what: str, error: BaseException) -> None:
    """Append an error to the run's ERRORS file: for those who look into it; people are told a line."""
    text = "".join(traceback.format_exception(error))
    told = f"{time.ctime()}  {what}\n{text}\n"
    with contextlib.suppress(OSError), (Path(run_dir) / ERRORS).open("a") as file:
        file.write(told)
    # Nobody may ever look at the disk of the node that this is.
    if (store := store_of(run_dir)) is not None:
        with contextlib.suppress(OSError):
            store.put(f"errors/{time.time_ns():019d}.log", told.encode(), tries=1)


def canonical(value: object) -> Any:
    """One spelling for equal values: 8.0 becomes 8, tuples become lists, numpy scalars become numbers."""
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in value]
    return value


def trial_key(config: Mapping[str, object]) -> str:
    """Stable 16-digit id of a configuration, independent of key order and of int or float spelling."""
    text = json.dumps(canonical(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: object) -> Any:
    """JSON has no NaN: non-finite numbers become None."""
    value = canonical(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value


# Between tries to write a line to a disk without room.
_PAUSES_S = (1, 2, 4, 8, 15)


class Journal:
    """Append-only journal; many processes may append to one file."""

    def __init__(self, run_dir: str | Path) -> None:
        self.path = Path(run_dir) / "trials.jsonl"
        self.store = store_of(run_dir)

    # ---- writing --------------------------------------------------------------------------------------

    def append(self, event: str, key: str, **fields: Any) -> dict[str, Any]:
        """Write one line and return it; when this returns, the line is on disk, or in the store.

        A disk without room is waited for: what the line tells may have taken hours.

        Raises:
            OSError: it could not be written.
        """
        row = {"event": event, "key": key, "time": time.time(), **fields}
        line = _line(row)
        if self.store is not None:
            self.store.add_record(OBJECTS, row, line)
            return row
        for pause in (*_PAUSES_S, None):
            try:
                self._append(line)
                break
            except OSError as error:
                if pause is None or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
            time.sleep(pause)
        return row

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.lseek(descriptor, 0, os.SEEK_END)
            if not size:
                line = _line({"event": "journal", "version": VERSION}) + line
            # A writer that was killed mid-line leaves a torn tail; start on a fresh line after it.
            elif os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            _write_whole(descriptor, line, size)
        finally:
            os.close(descriptor)

    def report(self, key: str, metrics: Metrics) -> None:
        """Book a report before the last."""
        self.append("report", key, **metrics)

    def finish(self, key: str, config: Knobs, metrics: Metrics, *, stopped: bool = False) -> Ending:
        """Book a trial's end with the metrics of its last report."""
        row = self.append("finish", key, config=dict(config), stopped=stopped, **metrics)
        return Ending(key, config, dict(metrics), row["time"], stopped=stopped)

    def fail(self, key: str, config: Knobs, message: str, kind: str = "failed") -> Ending:
        """Book a trial that cannot be trained; `kind` as in `Ending`."""
        row = self.append("error", key, config=dict(config), message=message, kind=kind)
        return Ending(key, config, time=row["time"], message=message, kind=kind)

    # ---- reading --------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """All whole lines after the first, oldest first; a torn line is passed over.

        Raises:
            ValueError: the file is of a later version.
        """
        return list(self._rows())

    def begin(self) -> None:
        """Book the version of a journal in a store, where no line is the first; that of a file is in its first one."""
        if self.store is not None:
            self.store.add_record(OBJECTS, row := {"event": "journal", "version": VERSION}, _line(row))

    def _rows(self) -> Iterator[dict[str, Any]]:
        for row in self._lines() if self.store is None else self.store.records(OBJECTS):
            if "event" not in row:
                continue
            if row["event"] != "journal":
                yield row
            elif int(row.get("version", VERSION)) > VERSION:
                raise ValueError(
                    f"{self.path}: version {row['version']} of the journal, later than this release reads ({VERSION}); "
                    "upgrade raylora"
                )

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        for line in self.path.read_bytes().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row

    def check_version(self) -> None:
        """Raises ValueError where the file is of a version that is not read here."""
        next(self._rows(), None)

    def concluded(self) -> dict[str, Ending]:
        """Key -> how its trial ended, by its first `finish` or `error` line."""
        found: dict[str, Ending] = {}
        for row in self._rows():
            if row["event"] in ("finish", "error"):
                found.setdefault(row["key"], _ending(row))
        return found

    def started(self) -> dict[str, Start]:
        """Key -> its start, in order of start."""
        found: dict[str, Start] = {}
        for row in self._rows():
            if row["event"] == "start":
                start = Start(row["key"], row["config"], row.get("trial_id", ""), row.get("host", ""))
                found.setdefault(row["key"], start)
        return found

    def last_report(self, key: str) -> Metrics:
        """The metrics of a trial's last report before its end; empty where there is none."""
        found: Metrics = {}
        for row in self._rows():
            if row["event"] == "report" and row["key"] == key:
                found = _metrics(row)
        return found


# What a line holds beside metrics.
_FIELDS = frozenset({"event", "key", "time", "config", "message", "kind", "stopped"})


def _metrics(row: Mapping[str, Any]) -> Metrics:
    return {name: value for name, value in row.items() if name not in _FIELDS}


def _ending(row: Mapping[str, Any]) -> Ending:
    failed = row["event"] == "error"
    return Ending(
        key=row["key"],
        config=row.get("config", {}),
        metrics={} if failed else _metrics(row),
        time=float(row.get("time", 0.0)),
        message=str(row.get("message", "unknown error")) if failed else None,
        stopped=bool(row.get("stopped")),
        kind=str(row.get("kind", "failed")) if failed else "",
    )


def _write_whole(descriptor: int, line: bytes, size: int) -> None:
    """Write a line at the end of a file of `size` bytes, to the disk.

    Raises:
        OSError: it cannot be written whole, as on a disk without room; no part of it is left.
    """
    try:
        left = memoryview(line)
        while left:  # a disk that fills up takes the beginning of a line without an error
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def _line(row: Mapping[str, object]) -> bytes:
    return (json.dumps(_plain(row), separators=(",", ":")) + "\n").encode()
